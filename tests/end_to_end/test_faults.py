"""Killed processes: no orphan is left behind, and the service recovers."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient

from tests.end_to_end.samples import MINILM
from tests.service import PROJECT, Service, free_ports, run_service, wait_until

pytestmark = [pytest.mark.triton, pytest.mark.slow]

MIN_PROCESSES = 4  # Triton, two of its Python stubs, the gateway


@pytest.fixture
def victim(repository: Path, tmp_path: Path) -> Iterator[Service]:
    with run_service(repository, tmp_path) as running:
        yield running


def can_embed(service: Service) -> bool:
    body = {"model": MINILM, "input": "Hello"}
    try:
        return httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_gone(processes: list[psutil.Process], timeout_s: float = 15) -> None:
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    assert not alive


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_every_process(victim: Service, stop: signal.Signals) -> None:
    started = victim.processes()
    assert len(started) >= MIN_PROCESSES
    victim.launcher.send_signal(stop)
    assert victim.launcher.wait(30) == 0
    wait_gone(started, timeout_s=1)


def test_a_killed_launcher_leaves_no_orphan(victim: Service) -> None:
    started = victim.processes()
    assert len(started) >= MIN_PROCESSES
    victim.launcher.kill()
    wait_gone(started)


def test_a_killed_triton_or_gateway_is_restarted(victim: Service) -> None:
    for name in ("tritonserver", "gateway"):
        killed = victim.find(name)
        family = [killed, *killed.children(recursive=True)]
        killed.kill()
        wait_gone(family)
        wait_until(lambda: can_embed(victim), 30)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_triton_is_restarted_when_a_stub_dies_or_hangs(victim: Service, fault: signal.Signals) -> None:
    """Triton itself does not restart a dead stub, and still reports ready."""
    triton = victim.find("tritonserver")
    stub = triton.children(recursive=True)[0]
    stub.send_signal(fault)
    wait_until(lambda: not triton.is_running() or triton.status() == psutil.STATUS_ZOMBIE, 10)
    wait_until(lambda: can_embed(victim), 30)
    wait_gone([stub])


async def test_a_client_that_disconnects_cancels_no_call_to_triton(victim: Service) -> None:
    """Cancelling a call can crash Triton's gRPC front end."""
    triton = victim.find("tritonserver")
    body = {"model": MINILM, "input": ["the quick brown fox"] * 8}

    async def hang_up(client: httpx.AsyncClient, after_s: float) -> None:
        with contextlib.suppress(httpx.TimeoutException):
            await client.post("/v1/embeddings", json=body, timeout=httpx.Timeout(10, read=after_s))

    async with httpx.AsyncClient(base_url=victim.http_url) as client:
        await asyncio.gather(*(hang_up(client, 0.001 * number) for number in range(1, 33)))
        response = await client.post("/v1/embeddings", json=body)
        metrics = (await client.get("/v1/metrics")).text
        triton_metrics = (await client.get("/v1/metrics/triton")).text
    assert len(response.json()["data"]) == 8
    assert 'status="499"' in metrics
    assert 'nv_inference_queue_duration_us{model="all_minilm_l6_v2_preprocess_text"' in triton_metrics
    with InferenceServerClient(victim.grpc_url) as triton_client:
        statistics = triton_client.get_inference_statistics().model_stats
    assert statistics
    assert [model.name for model in statistics if model.inference_stats.fail.count] == []
    assert triton.is_running()


@pytest.mark.parametrize("variable", ["GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT"])
def test_the_error_for_a_taken_port_names_the_setting(repository: Path, variable: str) -> None:
    ports = dict(zip(["GATEWAY_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT"], map(str, free_ports(3)), strict=True))
    with socket.create_server(("127.0.0.1", int(ports[variable]))):
        result = subprocess.run(
            [sys.executable, "-m", "launcher"],
            cwd=PROJECT,
            env=ports | {"REPOSITORY": str(repository)},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert result.returncode == 1
    assert f"port {ports[variable]} on 127.0.0.1 is taken" in result.stdout and f"{variable}=PORT" in result.stdout
