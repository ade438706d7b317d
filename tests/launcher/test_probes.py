"""The launcher's questions to Triton and the gateway, against servers that the tests hold."""

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from launcher import probes
from launcher.probes import WHOLE, GatewayProbe, TritonProbe
from preprocess.decode import decode_image
from preprocess.settings import ImageLimits
from tests.service import free_ports, wait_until

ENSEMBLES = {
    "a_text": ("a_preprocess_text", "a_embedder"),
    "b_text": ("b_preprocess_text", "b_embedder"),
    "b_image": ("b_preprocess_image", "b_vision_encoder", "b_embedder"),
    "bad_text": ("bad_preprocess_text", "bad_embedder"),
}


class HeldTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Holds the inferences of one ensemble while the test says so."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.texts: list[bytes] = []
        self.inferences = 0

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        return service_pb2.ServerLiveResponse(live=True)

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        index = service_pb2.RepositoryIndexResponse()
        for name, state in (
            ("a_text", "READY"),
            ("b_text", "READY"),
            ("b_image", "READY"),
            ("bad_text", "UNAVAILABLE"),
        ):
            index.models.add(name=name, state=state)
        return index

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        while request.model_name in self.held:
            time.sleep(0.02)
        self.texts.append(request.raw_input_contents[0])
        self.inferences += 1
        return service_pb2.ModelInferResponse()

    def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        statistics = service_pb2.ModelStatisticsResponse()
        for name in ("a_embedder", "a_preprocess_text", "b_embedder", "b_vision_encoder"):
            statistics.model_stats.add(name=name, execution_count=self.inferences)
        return statistics


@pytest.fixture
def triton() -> HeldTriton:
    return HeldTriton()


@pytest.fixture
def probe(triton: HeldTriton, monkeypatch: pytest.MonkeyPatch) -> Iterator[TritonProbe]:
    monkeypatch.setattr(probes, "MIN_CANARY_INTERVAL_S", 0.0)
    monkeypatch.setattr(probes, "CANARY_INTERVAL_FACTOR", 0)
    monkeypatch.setattr(probes, "CANARY_PATIENCE_S", 0.3)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield TritonProbe(f"127.0.0.1:{port}", lambda: ENSEMBLES)
    triton.held.clear()
    server.stop(None)


def test_every_loaded_ensemble_embeds_a_canary_again_and_again(probe: TritonProbe, triton: HeldTriton) -> None:
    def have_come(count: int) -> bool:
        return not probe.find_silent() and len(triton.texts) >= count

    wait_until(lambda: have_come(9), 10)
    assert {text[4:] for text in triton.texts} == {probes.CANARY, probes.CANARY_IMAGE}
    assert probe.list_loaded() == {"a_text", "b_text", "b_image"}


def test_an_ensemble_whose_canary_waits_too_long_is_silent_until_it_is_answered(
    probe: TritonProbe, triton: HeldTriton
) -> None:
    for name in ("b_text", "b_image"):
        triton.held.add(name)
        wait_until(lambda: set(probe.find_silent()) == triton.held, 10)
    triton.held.clear()
    wait_until(lambda: not probe.find_silent(), 10)


def test_the_canary_image_is_one() -> None:
    assert decode_image(probes.CANARY_IMAGE, ImageLimits()).size == (1, 1)


def test_progress_counts_the_steps_of_the_ensemble(probe: TritonProbe, triton: HeldTriton) -> None:
    triton.inferences = 3
    counts = [probe.count_progress(name) for name in ("a_text", "b_text", "b_image", WHOLE)]
    assert counts == [6, 3, 6, 12]


def test_a_triton_that_is_gone_is_silent_as_a_whole() -> None:
    probe = TritonProbe(f"127.0.0.1:{free_ports(1)[0]}", lambda: ENSEMBLES)
    assert (list(probe.find_silent()), probe.is_live(), probe.list_loaded()) == ([WHOLE], False, set())
    assert probe.count_progress(WHOLE) == 0


class HealthHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/v1/health/live": 200, "/v1/health/ready": 503}.get(self.path, 404))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep silent."""


def test_a_gateway_may_be_live_and_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # must not be asked
    with ThreadingHTTPServer(("127.0.0.1", 0), HealthHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        probe = GatewayProbe("0.0.0.0", server.server_port)
        assert not probe.find_silent() and not probe.is_ready()
        server.shutdown()
    assert list(probe.find_silent()) == [WHOLE]
