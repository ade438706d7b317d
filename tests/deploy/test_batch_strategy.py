"""The custom batching of deploy/batch_strategy, in a real Triton that forms the batches of a model without a graph."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from launcher.triton import assemble_backends, server_command, server_environment
from tests.service import PROJECT, free_ports, wait_until
from tests.triton_requests import infer

pytestmark = pytest.mark.triton

SOURCE = PROJECT / "deploy" / "batch_strategy" / "batch_strategy.c"
MODEL = Path(__file__).with_name("row_counter.py")
MAX_ROWS = 256
CONFIG = """
backend: "python"
max_batch_size: 64
input {{ name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }}
output {{ name: "batch" data_type: TYPE_INT64 dims: [ 2 ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
dynamic_batching {{ {batching} }}
{parameters}
"""
PARAMETER = 'parameters {{ key: "MAX_BATCH_ROWS" value {{ string_value: "{}" }} }}'
MODELS = {
    "bounded": ("", PARAMETER.format(MAX_ROWS)),
    "unbounded": ("", ""),
    "delayed": ("max_queue_delay_microseconds: 100", PARAMETER.format(MAX_ROWS)),
    "delayed_unbounded": ("max_queue_delay_microseconds: 100", ""),
    "no_number": ("", PARAMETER.format("256 rows")),
    "below_one": ("", PARAMETER.format(0)),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the batch strategy is NOT tested")
    path = tmp_path_factory.mktemp("library") / "batchstrategy.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [compiler, "-std=gnu11", "-O2", *warnings, "-shared", "-fPIC", "-o", str(path), str(SOURCE)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "triton.log"


@pytest.fixture(scope="module")
def triton(library: Path, log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServerClient]:
    """Serve MODELS with the library in their backend's folder."""
    root = tmp_path_factory.mktemp("triton")
    for name, (batching, parameters) in MODELS.items():
        version = root / "models" / name / "1"
        version.mkdir(parents=True)
        shutil.copy(MODEL, version / "model.py")
        (version.parent / "config.pbtxt").write_text(CONFIG.format(batching=batching, parameters=parameters))
    backends = assemble_backends(root / "backends")
    shutil.copy(library, backends / "python")
    grpc_port, metrics_port = free_ports(2)
    command = server_command(root / "models", backends, grpc_port, metrics_port)
    with log.open("w") as output:
        server = subprocess.Popen(command, env=server_environment(), stdout=output, stderr=output)
    try:
        with InferenceServerClient(f"127.0.0.1:{grpc_port}") as client:
            wait_until(lambda: server.poll() is not None or is_live(client), 60)
            yield client
    finally:
        server.terminate()
        server.wait(60)


def is_live(client: InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live() and client.is_server_ready())
    except InferenceServerException:
        return False


def send(triton: InferenceServerClient, model: str, rows: int) -> tuple[int, int]:
    """Return the numbers of rows and requests of the batch in which a request ran."""
    batch = infer(triton, model, input_ids=np.zeros(rows, np.int64))["batch"]
    return int(batch[0]), int(batch[1])


def send_all(triton: InferenceServerClient, model: str, sizes: list[int]) -> list[tuple[int, int]]:
    """Send requests of these numbers of rows, two dozen at a time."""
    with ThreadPoolExecutor(24) as clients:
        return list(clients.map(lambda rows: send(triton, model, rows), sizes))


def test_batches_keep_to_the_bound_and_a_larger_request_runs_alone(triton):
    sizes = random.Random(0).choices([1, 5, 20, 60, MAX_ROWS, MAX_ROWS + 1, 700], k=600)
    batches = send_all(triton, "bounded", sizes)
    assert all(rows <= MAX_ROWS or requests == 1 for rows, requests in batches)
    assert all(requests == 1 for size, (_, requests) in zip(sizes, batches, strict=True) if size >= MAX_ROWS)


def test_batches_are_filled_up_to_the_bound(triton):
    """Many arrive one by one, while a batch before them runs: Triton adds them to the batch that waits."""
    batches = send_all(triton, "bounded", [30] * 600)
    assert max(rows for rows, _ in batches) == MAX_ROWS // 30 * 30


def test_batches_without_a_bound_hold_what_waits(triton):
    batches = send_all(triton, "unbounded", [60] * 300)
    assert max(rows for rows, _ in batches) > MAX_ROWS


@pytest.mark.parametrize("model", ["bounded", "unbounded", "delayed_unbounded"])
def test_a_model_is_served(triton, model):
    assert send(triton, model, 3) == (3, 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("delayed", "MAX_BATCH_ROWS needs max_queue_delay_microseconds 0: remove one of them"),
        ("no_number", "MAX_BATCH_ROWS has to be a whole number above 0"),
        ("below_one", "MAX_BATCH_ROWS has to be a whole number above 0"),
    ],
)
def test_a_model_with_a_faulty_bound_is_not_served(triton, log, model, message):
    assert not triton.is_model_ready(model)
    assert f"failed to load '{model}' version 1: Invalid argument: {message}" in log.read_text()
