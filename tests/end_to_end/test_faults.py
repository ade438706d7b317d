"""Killed, stopped and hung processes: no orphan is left behind, and the service recovers."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient

from bench.chaos import inject_all
from bench.faults import FAULTS, damage_repository
from tests.end_to_end.samples import MINILM, TINY
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


def test_clients_notice_little_of_stopped_processes_and_nothing_of_a_lost_decoder(
    repository: Path, tmp_path: Path
) -> None:
    """The short form of `make chaos`."""
    chosen = ("decoder killed", "decoder stopped", "gateway stopped", "Triton stopped")
    faults = [replace(fault, max_recovery_s=60.0) for fault in FAULTS if fault.name in chosen]
    observations = list(inject_all(repository, tmp_path, faults, image_model=TINY))
    assert [observation.fault for observation in observations] == list(chosen)
    assert [observation.complaint for observation in observations] == [""] * len(chosen)


def test_a_model_that_cannot_be_loaded_and_one_that_hangs_leave_the_others_served(
    repository: Path, tmp_path: Path
) -> None:
    damaged = damage_repository(repository, tmp_path / "models", "tiny_checkpoint_vision_encoder/1/model.onnx")
    flag = tmp_path / "hang"
    write_hanging_model(damaged, flag)
    with run_service(damaged, tmp_path) as service:
        check_unavailable(service)
        triton = service.find("tritonserver")
        regions = list_regions(triton)
        assert regions
        flag.touch()
        wait_until(lambda: not triton.is_running() or triton.status() == psutil.STATUS_ZOMBIE, 60)
        flag.unlink()
        wait_until(lambda: can_embed(service) and service.is_ready(), 60)
        assert "does not respond (hanging_text) and does not work: restarting it" in service.output_path.read_text()
        assert not any(region.exists() for region in regions)
        check_second_signal(service)


def check_unavailable(service: Service) -> None:
    """Check that the model whose file is missing is unavailable, and said to be, while the others are ready."""
    assert "tiny_checkpoint_vision_encoder/1/model.onnx is missing" in service.output_path.read_text()
    health = httpx.get(f"{service.http_url}/v1/health/ready").json()
    assert (health["ready"], health["models"]) == (True, {"tiny_checkpoint": "unavailable"})
    models = httpx.get(f"{service.http_url}/v1/models").json()["data"]
    assert {model["id"] for model in models} == {MINILM, "test/hanging"}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json={"model": TINY, "input": "a"})
    assert (response.status_code, "could not load it" in response.json()["message"]) == (503, True)


def check_second_signal(service: Service) -> None:
    """Check that a second signal kills everything, even stopped processes, without waiting for requests."""
    family = service.processes()
    service.find("gateway").send_signal(signal.SIGSTOP)
    service.launcher.send_signal(signal.SIGTERM)
    time.sleep(1)
    service.launcher.send_signal(signal.SIGTERM)
    assert service.launcher.wait(10) == 1
    wait_gone(family)


def write_hanging_model(repository: Path, flag: Path) -> None:
    """Add a model to a repository whose only step waits for ever, without any work, while a file exists."""
    tensors = """
        max_batch_size: 1
        input [ { name: "text" data_type: TYPE_STRING dims: [ -1 ] },
                { name: "truncate" data_type: TYPE_STRING dims: [ 1 ] optional: true } ]
        output [ { name: "embeddings" data_type: TYPE_FP32 dims: [ -1, 2 ] },
                 { name: "token_counts" data_type: TYPE_INT32 dims: [ -1 ] } ]
    """
    manifest = json.dumps({"public_id": "test/hanging", "max_tokens": 8, "files": []})
    identity = {"public_id": "test/hanging", "modality": "text", "dimensions": "2", "max_tokens": "8"}
    parameters = "\n".join(
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
        for key, value in {**identity, "manifest": manifest}.items()
    )
    maps = " ".join(
        f'{kind}_map {{ key: "{name}" value: "{name}" }}'
        for kind, name in (
            ("input", "text"),
            ("input", "truncate"),
            ("output", "embeddings"),
            ("output", "token_counts"),
        )
    )
    step = f'ensemble_scheduling {{ step {{ model_name: "hanging_embedder" model_version: -1 {maps} }} }}'
    for name, config in (
        ("hanging_text", f'platform: "ensemble" {tensors} {parameters} {step}'),
        ("hanging_embedder", f'backend: "python" {tensors} instance_group [ {{ count: 1 kind: KIND_CPU }} ]'),
    ):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
    (repository / "hanging_embedder" / "1" / "model.py").write_text(HANGING_MODEL.format(flag=str(flag)))


HANGING_MODEL = """
import os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        while os.path.exists({flag!r}):
            time.sleep(0.2)
        return [self.respond(request) for request in requests]

    def respond(self, request):
        count = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().shape[1]
        embeddings = np.tile(np.array([0.6, 0.8], np.float32), (1, count, 1))
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("embeddings", embeddings), pb_utils.Tensor("token_counts", np.ones((1, count), np.int32)),
        ])
"""


def list_regions(triton: psutil.Process) -> list[Path]:
    """Return the regions of shared memory that Triton shares with its stubs."""
    return [Path(entry.path) for entry in triton.memory_maps() if "_backend_shm_region_" in entry.path]


def test_a_busy_triton_is_not_restarted(service: Service) -> None:
    triton = service.find("tritonserver")
    body = {"model": MINILM, "input": ["one two three four five " * 45] * 40}
    with ThreadPoolExecutor(4) as clients:
        answers = clients.map(
            lambda _: httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=300), range(4)
        )
        assert [answer.status_code for answer in answers] == [200] * 4
    assert service.find("tritonserver") == triton
    assert "restarting" not in service.output_path.read_text()


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
