"""Measures how fast the service is, against whom, and where the time goes: `python -m bench`."""

import sys
from pathlib import Path

# `preprocess` is a Triton backend: it is copied beside the server, never installed.
sys.path.append(str(Path(__file__).resolve().parent.parent / "backends"))
