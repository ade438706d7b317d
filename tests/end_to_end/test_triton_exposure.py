"""What a stranger on this machine can do to the embedded Triton."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.end_to_end.samples import MINILM
from tests.service import Service, run_service
from tests.triton_requests import infer

pytestmark = pytest.mark.triton


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.register_system_shared_memory("mine", "/anything", 16),
        lambda client: client.unregister_system_shared_memory(),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
        lambda client: client.update_log_settings({"log_verbose_level": 9}),
    ],
)
def test_shared_memory_tracing_and_logging_are_closed(
    triton: InferenceServerClient, call: Callable[[InferenceServerClient], object]
) -> None:
    with pytest.raises(InferenceServerException, match="protocol is restricted"):
        call(triton)


def test_models_can_be_neither_loaded_nor_unloaded(triton: InferenceServerClient) -> None:
    for change in (triton.load_model, triton.unload_model):
        with pytest.raises(InferenceServerException, match="not allowed"):
            change("all_minilm_l6_v2_text")


@pytest.mark.slow
def test_socket_serves_this_user_only_and_replaces_the_port(
    repository: Path, tmp_path: Path, short_folder: Path
) -> None:
    sockets = short_folder / "sockets"
    with run_service(repository, tmp_path, TRITON_SOCKET_DIR=str(sockets)) as service:
        answer = httpx.post(f"{service.http_url}/v1/embeddings", json={"model": MINILM, "input": "a"}, timeout=30)
        assert answer.status_code == 200
        [path] = sockets.iterdir()
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        with InferenceServerClient(f"unix:{path}") as client:
            assert infer(client, "all_minilm_l6_v2_text", text=["a"])["embeddings"].shape == (1, 384)
        assert_no_port(service)
    assert not list(sockets.iterdir())


def assert_no_port(service: Service) -> None:
    with (
        InferenceServerClient(service.grpc_url) as client,
        pytest.raises(InferenceServerException, match="UNAVAILABLE"),
    ):
        client.is_server_live()
