"""Telemetry of the libraries that an export imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Prints the libraries that send telemetry, each with the variable that disables it as it was at the import.
SCRIPT = """
import importlib, os, sys
disabled_by = {"onnxruntime": "ORT_DISABLE_TELEMETRY", "huggingface_hub": "HF_HUB_DISABLE_TELEMETRY"}
def watch(event, arguments):
    if event == "import" and arguments[0] in disabled_by:
        print(arguments[0], os.environ.get(disabled_by[arguments[0]]))
sys.addaudithook(watch)
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("module", "libraries"),
    [
        ("export.pipeline", {"onnxruntime", "huggingface_hub"}),
        ("export.validation.text", {"onnxruntime", "huggingface_hub"}),
        ("export.architectures.nemotron_vl", {"onnxruntime"}),
        ("export.tiny_checkpoint.__main__", set()),
        ("export.verify", set()),
    ],
)
def test_telemetry_is_off_before_any_library_is_imported(module, libraries, tmp_path):
    environment = os.environ | {
        "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "ORT_DISABLE_TELEMETRY": "0",
        "HF_HUB_DISABLE_TELEMETRY": "0", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    imports = [line.split() for line in done.stdout.splitlines()]
    assert libraries <= {library for library, _ in imports}
    assert {value for _, value in imports} <= {"1"}
    assert not list(tmp_path.rglob("*onnxruntime*")), "ONNX Runtime keeps a device id and events there"
