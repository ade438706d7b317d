"""Fixtures that run graphs as servers do: saved, loaded by ONNX Runtime, with packed rows as inputs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from export.graphs.builder import IR_VERSION, GraphBuilder
from export.graphs.spelled_out import spell_out
from export.graphs.targets import Target

Run = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ir.Model], Run]:
    """Save a model, with what only a GPU has kernels for spelled out, and return a function from inputs to output."""

    def load_model(model: ir.Model) -> Run:
        assert model.graph.name is not None
        path = tmp_path_factory.mktemp(model.graph.name) / "model.onnx"
        ir.save(spell_out(model), path, external_data="model.data")
        session = start_session(path)
        return lambda **inputs: session.run(None, inputs)[0]

    return load_model


@pytest.fixture
def run_graph() -> Callable[..., list[np.ndarray]]:
    """Record, load and run a graph with arrays as inputs, and return the values that `record` returns."""

    def run(record: Callable[..., list[ir.Value]], *arrays: np.ndarray) -> list[np.ndarray]:
        op = GraphBuilder()
        inputs = [
            op.input(f"input_{index}", ir.DataType.from_numpy(array.dtype), [f"rows_{index}", *array.shape[1:]])
            for index, array in enumerate(arrays)
        ]
        model = ir.Model(op.build("graph", record(op, *inputs)), ir_version=IR_VERSION)
        session = start_session(ir.to_proto(model).SerializeToString())
        return session.run(None, {value.name: array for value, array in zip(inputs, arrays, strict=True)})

    return run


@pytest.fixture(scope="module", params=["cpu", "cuda", "tensorrt", "tensorrt-dense"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each device that there is a form of the graphs for."""
    return request.param


def start_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2  # two threads reveal races
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
