"""The gateway as a process: without Triton, with invalid settings, and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from gateway.__main__ import exit_cleanly
from tests.service import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def gateway(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    environment = os.environ | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKERS": str(request.param),
        "TRITON_URL": f"127.0.0.1:{free_port()}",
    }
    process = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            httpx.get(f"{url}/v1/health/live")
            break
        except httpx.TransportError:
            time.sleep(0.1)
    yield process, url
    process.kill()
    process.wait()


def test_without_triton_it_lives_is_not_ready_and_stops_with_status_0(
    gateway: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, url = gateway
    assert httpx.get(f"{url}/v1/health/live").status_code == 200
    assert httpx.get(f"{url}/v1/health/ready").status_code == 503
    for _ in range(4):
        assert httpx.get(f"{url}/v1/models").status_code == 503
    counted = httpx.get(f"{url}/v1/metrics").text
    assert 'tessera_requests_total{dialect="openai_nim",model="",route="/v1/models",status="503"} 4.0' in counted
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_wrong_settings_are_named_in_one_line() -> None:
    environment = os.environ | {"GATEWAY_PORT": "many"}
    run = subprocess.run(
        [sys.executable, "-m", "gateway"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "port" in run.stderr
    assert "Traceback" not in run.stderr


def test_stopping_signal_ends_the_process_with_status_0() -> None:
    with pytest.raises(SystemExit) as stop:
        exit_cleanly(signal.SIGTERM, None)
    assert stop.value.code == 0


@pytest.mark.parametrize("signals", [1, 2], ids=["one-signal", "two-signals"])
def test_readiness_ends_before_the_socket_closes_and_a_second_signal_shortens_that(signals: int) -> None:
    port = free_port()
    environment = os.environ | {"GATEWAY_PORT": str(port), "GATEWAY_DRAIN_S": "30", "TRITON_URL": "127.0.0.1:1"}
    gateway = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: responds(url), 30)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.stderr is not None
        assert any(b"draining" in line for line in gateway.stderr)
        assert httpx.get(f"{url}/v1/health/live").status_code == 200
        assert httpx.get(f"{url}/v1/health/ready").status_code == 503
        if signals == 2:
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(20) == 0
    finally:
        gateway.kill()
        gateway.communicate()


def test_what_is_not_done_at_the_end_of_the_grace_period_gets_the_documented_error() -> None:
    port = free_port()
    environment = os.environ | {"GATEWAY_PORT": str(port), "GATEWAY_GRACE_S": "1", "GATEWAY_DRAIN_S": "0"}
    gateway = subprocess.Popen([sys.executable, "-m", "gateway"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: responds(f"http://127.0.0.1:{port}"), 30)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            head = (
                "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
            )
            client.sendall(head.encode() + b'{"in')  # the rest of the body does not come
            time.sleep(0.5)
            gateway.send_signal(signal.SIGTERM)
            response = b"".join(iter(lambda: client.recv(4096), b""))
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in response.lower()
        body = json.loads(response.partition(b"\r\n\r\n")[2])
        assert (body["message"], body["type"]) == ("the server is stopping", "service_unavailable")
        assert gateway.wait(20) == 0
    finally:
        gateway.kill()
        log = gateway.communicate()[1]
    assert "Traceback" not in log


def responds(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/health/live").status_code == 200
    except httpx.TransportError:
        return False
