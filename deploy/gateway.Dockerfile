# The HTTP service: no model, no Triton, no PyTorch.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
FROM $PYTHON_IMAGE

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    UV_NO_CACHE=1 UV_SYSTEM_PYTHON=1 UV_COMPILE_BYTECODE=1 ORT_DISABLE_TELEMETRY=1
WORKDIR /app

# Dependencies have a layer of their own: they change less often than the code. pip cannot install them without it.
COPY pyproject.toml constraints.txt ./
RUN pip install --constraint constraints.txt uv \
 && uv pip install --constraint constraints.txt --requirements pyproject.toml --extra redis --extra tiktoken \
 && pip uninstall --yes uv

COPY gateway gateway
COPY deploy/health_check.py /opt/tessera/
RUN chmod -R a+rX . /opt/tessera && python -m compileall -q gateway && useradd --uid 1000 --create-home tessera

USER 1000:1000
CMD ["python", "-m", "gateway"]
