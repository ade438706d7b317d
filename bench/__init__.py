"""Benchmark of the service: how fast it is, compared with what, and where the time goes. Run `python -m bench`."""

import os
import sys
from pathlib import Path

# ONNX Runtime reads this when it is imported; later is too late. Child processes inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# `preprocess` is a Triton backend: it is copied next to the server, never installed.
sys.path.append(str(Path(__file__).resolve().parent.parent / "backends"))
