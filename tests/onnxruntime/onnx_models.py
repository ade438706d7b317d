"""Small ONNX models in the form that ragged batching requires, and Triton's arguments for them."""

import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper


def write_model(folder: Path, nodes: list[onnx.NodeProto] | None = None) -> Path:
    """Write `1/model.onnx` in a model folder: by default `embeddings` is the length of each sequence, as a float.

    Args:
        folder: Model folder.
        nodes: Nodes from `input_ids` [T] and `sequence_lengths` [n] to `embeddings` [n, 1].
    """
    default = [
        helper.make_node("Cast", ["sequence_lengths"], ["lengths"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["lengths", "axes"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes or default,
        "lengths",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["tokens"]),
            helper.make_tensor_value_info("sequence_lengths", TensorProto.INT32, ["sequences"]),
        ],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["rows", 1])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return path


def model_config() -> dict[str, Any]:
    """Return the configuration of `write_model`'s models, as Triton passes it."""
    return {
        "input": [{"name": "input_ids"}, {"name": "sequence_lengths"}],
        "output": [{"name": "embeddings"}],
        "batch_output": [
            {
                "kind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
                "target_name": ["embeddings"],
                "source_input": ["sequence_lengths"],
            }
        ],
    }


def initialize_args(folder: Path, config: dict[str, Any], kind: str = "CPU") -> dict[str, str]:
    """Return Triton's arguments to a backend's `initialize`."""
    return {
        "model_config": json.dumps(config),
        "model_repository": str(folder),
        "model_version": "1",
        "model_instance_kind": kind,
        "model_instance_device_id": "0",
    }
