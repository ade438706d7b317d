"""Checkpoints to Triton model repositories: read, build, validate, publish."""

import os

# Read when onnxruntime (1.31 and later) and huggingface_hub are imported, so set before any module here can do so.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
