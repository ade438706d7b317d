"""The ONNX Runtime backend with requests as Triton's stub would pass them."""

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from tests.onnxruntime.fake_triton import InferenceResponse, Request, make_module
from tests.onnxruntime.onnx_models import initialize_args, model_config, write_model
from tests.service import PROJECT

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a model with the given nodes, by default one whose embedding is the length of each sequence."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", make_module())
    monkeypatch.delitem(sys.modules, "model", raising=False)
    models = []

    def load(nodes: Any = None, **changes: Any) -> Any:
        write_model(tmp_path, nodes)
        model = importlib.import_module("model").TritonPythonModel()
        model.initialize(initialize_args(tmp_path, model_config() | changes))
        models.append(model)
        return model

    yield load
    for model in models:
        model.finalize()


def make_request(*lengths: int) -> Request:
    return Request.of(input_ids=[0] * sum(lengths), sequence_lengths=list(lengths))


def execute(model: Any, *requests: Request) -> list[InferenceResponse]:
    """Return the response of each request, wherever it was sent from."""
    responses = model.execute(list(requests))
    if responses is not None:
        assert not any(request.sent for request in requests)
        return list(responses)
    model.lanes.close()
    assert [len(request.sent) for request in requests] == [1] * len(requests)
    return [request.sent[0] for request in requests]


def read_rows(response: InferenceResponse) -> list[list[float]]:
    assert response.error is None
    [tensor] = response.output_tensors
    assert tensor.values.shape[0] == 1
    return tensor.values[0].tolist()


@pytest.mark.parametrize("scale", [1, 100], ids=["in Triton's thread", "in a lane"])
def test_each_request_gets_its_own_rows(load: Load, scale: int) -> None:
    first, second = execute(load(), make_request(2 * scale, 3 * scale), make_request(scale))
    assert read_rows(first) == [[2.0 * scale], [3.0 * scale]]
    assert read_rows(second) == [[1.0 * scale]]


def test_requests_above_the_rows_of_a_run_are_split_over_several(load: Load) -> None:
    lengths = [300, 300, 2000, 1]
    responses = execute(load(), *map(make_request, lengths))
    assert [read_rows(response) for response in responses] == [[[float(length)]] for length in lengths]


def test_sixteen_threads_run_four_batches_at_a_time(load: Load) -> None:
    model = load(parameters={"intra_op_thread_count": {"string_value": "16"}})
    together = threading.Barrier(4, timeout=10)
    for _ in range(4):
        model.lanes.start(lambda is_alone: together.wait())
    model.lanes.close()
    assert not together.broken


@pytest.mark.parametrize("neighbour", [1, 1000], ids=["in Triton's thread", "in a lane"])
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request.of(input_ids=[], sequence_lengths=[0]), "input_ids has no rows"),
        (Request.of(input_ids=[1, 2], sequence_lengths=[1]), "must add up to the 2 rows of input_ids"),
        (Request.of(input_ids=[1], sequence_lengths=[2, -1]), "must add up to the 1 rows of input_ids"),
    ],
    ids=["empty", "sum", "negative"],
)
def test_an_invalid_request_is_refused_alone(load: Load, request_: Request, message: str, neighbour: int) -> None:
    refused, valid = execute(load(), Request(request_.tensors), make_request(neighbour))
    assert refused.error is not None and message in refused.error.message
    assert read_rows(valid) == [[float(neighbour)]]


@pytest.mark.parametrize("valid_length", [1, 49], ids=["in Triton's thread", "in a lane"])
def test_a_request_that_the_graph_cannot_process_fails_alone(load: Load, valid_length: int) -> None:
    """The graph looks each length up in a table of fifty values."""
    table = helper.make_tensor("", TensorProto.FLOAT, [50], range(50))
    nodes = [
        helper.make_node("Constant", [], ["table"], value=table),
        helper.make_node("Gather", ["table", "sequence_lengths"], ["lengths"]),
        helper.make_node("Unsqueeze", ["lengths", "axes"], ["embeddings"]),
    ]
    failed, valid = execute(load(nodes), make_request(51), make_request(valid_length))
    assert failed.error is not None and failed.error.message == "the model cannot process this request"
    assert read_rows(valid) == [[float(valid_length)]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_output": []}, "without batch_output BATCH_SCATTER_WITH_INPUT_SHAPE: embeddings"),
        ({"input": [{"name": "input_ids"}]}, "names the inputs"),
        ({"output": [{"name": "embeddings"}, {"name": "scores"}]}, "scores"),
    ],
)
def test_a_configuration_that_does_not_match_the_graph_is_an_error(
    load: Load, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(**changes)


def test_the_backend_imports_none_of_the_other_packages() -> None:
    script = """
import sys
from tests.onnxruntime.fake_triton import make_module
sys.modules["triton_python_backend_utils"] = make_module()
import model
print(*{"bench", "deploy", "export", "gateway", "launcher", "preprocess"} & sys.modules.keys())
"""
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'backends' / 'onnxruntime'}"}
    assert subprocess.check_output([sys.executable, "-c", script], env=environment, text=True) == "\n"
