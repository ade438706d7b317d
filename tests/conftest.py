"""What holds for all tests."""

import os

# Before any test module imports onnxruntime, which would report to its vendor from then on.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
