"""ONNX graphs as files of a model folder."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnxruntime

MODEL = "model.onnx"
WEIGHTS = "model.onnx.data"  # external: a file of protobuf ends at 2 GiB


def write_graph(model: ir.Model, version_folder: Path) -> Path:
    """Write a graph and its weights, and return the path of the graph.

    Weights are read from the checkpoint one at a time while they are written.
    """
    path = version_folder / MODEL
    ir.save(model, path, external_data=WEIGHTS)
    return path


def open_graph(path: Path) -> onnxruntime.InferenceSession:
    """Load a written graph for the CPU, as a server would."""
    onnxruntime.disable_telemetry_events()  # from 1.31 on it would keep a device id in the user's cache folder
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
