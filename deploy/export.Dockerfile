# The one-shot export of a checkpoint to a Triton repository. It runs on the CPU, also when it exports for a GPU.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
FROM $PYTHON_IMAGE

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    UV_NO_CACHE=1 UV_SYSTEM_PYTHON=1 UV_COMPILE_BYTECODE=1 ORT_DISABLE_TELEMETRY=1
WORKDIR /app

# PyTorch without its gigabytes of CUDA libraries, which an export does not use. Empty: from the package index.
ARG TORCH_BACKEND=cpu
# Dependencies have a layer of their own: they change less often than the code. pip cannot install them without it.
COPY pyproject.toml constraints.txt ./
RUN pip install --constraint constraints.txt uv \
 && uv pip install --constraint constraints.txt --requirements pyproject.toml --extra export ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} \
 && pip uninstall --yes uv

COPY export export
COPY deploy/export_missing.py deploy/remove_model.py deploy/
# A new volume takes the owner of the folder on which it is mounted.
RUN chmod -R a+rX . && python -m compileall -q export deploy && useradd --uid 1000 --create-home tessera \
 && install --directory --owner 1000 --group 1000 /models /cache /checkpoints

# Downloads and temporary files go to the volume, because /tmp is in memory.
ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache TMPDIR=/cache
USER 1000:1000
CMD ["python", "-m", "deploy.export_missing"]
