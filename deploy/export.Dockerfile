# The one-shot that turns a checkpoint into a Triton repository. It computes on the CPU, also for a GPU.
FROM python:3.11.13-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app

# PyTorch without the gigabytes of CUDA that it would not use.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt ./
COPY deploy/requirements.py deploy/
RUN python -m deploy.requirements export > requirements.txt \
 && pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" --requirement requirements.txt

COPY export export
COPY deploy/export_missing.py deploy/
# New volumes take the owner of the folders that they are mounted on.
RUN chmod -R a+rX . && python -m compileall -q export deploy && useradd --uid 1000 --create-home tessera \
 && install --directory --owner 1000 --group 1000 /models /cache /checkpoints

# Downloads and scratch files go to the volume: /tmp is memory.
ENV HF_HOME=/cache/huggingface XDG_CACHE_HOME=/cache TMPDIR=/cache
USER 1000:1000
CMD ["python", "-m", "deploy.export_missing"]
