# The HTTP service: no model, no Triton, no PyTorch.
FROM python:3.11.13-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app

# Dependencies first: they change less often than the code.
COPY pyproject.toml constraints.txt ./
COPY deploy/requirements.py deploy/
RUN python -m deploy.requirements > requirements.txt \
 && pip install --constraint constraints.txt --requirement requirements.txt

COPY gateway gateway
RUN chmod -R a+rX . && python -m compileall -q gateway && useradd --uid 1000 --create-home tessera

USER 1000:1000
CMD ["python", "-m", "gateway"]
