"""The containers of docker-compose.cpu.yml, built on stand-ins for their base images and run by Docker."""

import base64
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from gateway.core.checks import FINGERPRINT_HEADER
from tests.deploy import stand_ins
from tests.end_to_end.samples import TINY_CHECKPOINT
from tests.end_to_end.test_golden import GOLDEN, INPUTS, QUERIES, TOLERANCE, WITH_IMAGE, read_image
from tests.export.tiny_bert import write_tiny_bert
from tests.service import PROJECT, free_ports, is_ready, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.triton, pytest.mark.timeout(1800)]

READY_TIMEOUT_S = 300.0
IMAGE = next(index for index in WITH_IMAGE if not INPUTS[index]["text"])


@dataclass
class Containers:
    """A Compose project, with variables that a test may change."""

    files: list[Path]
    port: int
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Compose, of whichever version is installed."""
        has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        files = [word for file in self.files for word in ("--file", str(file))]
        command = [*(["docker", "compose"] if has_plugin else ["docker-compose"]), *files, *words]
        environment = os.environ | {"DOCKER_BUILDKIT": "0", "GATEWAY_PORT": str(self.port)} | self.variables | variables
        return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)

    def up(self, **variables: str) -> None:
        """Start what is not running as it should, and wait until the gateway is ready."""
        done = self.compose("up", "--detach", **variables)
        assert done.returncode == 0, done.stdout + done.stderr + self.logs("export")
        wait_until(lambda: is_ready(self.url), READY_TIMEOUT_S)

    def logs(self, service: str) -> str:
        """Return the log of a service's container."""
        return self.compose("logs", "--no-color", service).stdout

    def inspect(self, service: str, template: str) -> str:
        """Return a property of a service's container."""
        container = self.compose("ps", "--quiet", service).stdout.strip()
        command = ["docker", "inspect", "--format", template, container]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def main_process(self, service: str) -> psutil.Process:
        """Return the process that a container's init runs."""
        [main] = psutil.Process(int(self.inspect(service, "{{.State.Pid}}"))).children()
        return main

    def embed(self, model: str, item: str, input_type: str = "passage") -> np.ndarray:
        """Return the embedding of a text or a data URL."""
        body = {"model": model, "input": item, "input_type": input_type}
        response = httpx.post(f"{self.url}/v1/embeddings", json=body, timeout=60)
        response.raise_for_status()
        return np.array(response.json()["data"][0]["embedding"], np.float32)


@pytest.fixture(scope="module")
def containers(tmp_path_factory) -> Iterator[Containers]:
    """The containers, serving the tiny checkpoint."""
    if obstacle := stand_ins.find_obstacle():
        pytest.skip(f"{obstacle}: THE CONTAINERS ARE NOT TESTED")
    folder = tmp_path_factory.mktemp("containers")
    stand_ins.build_all(PROJECT / "build" / "stand_ins")
    build = {"build": {"network": "host", "args": stand_ins.build_arguments()}}
    redis_command = ["redis-server", "--save", "", "--protected-mode", "no"]
    redis = {"image": stand_ins.DEBIAN, "command": redis_command, "networks": ["edge"]}
    services = {**dict.fromkeys(("export", "triton", "gateway"), build), "redis": redis}
    (folder / "stand_ins.json").write_text(json.dumps({"services": services}))
    shutil.copytree(TINY_CHECKPOINT, folder / "checkpoints" / "tiny-checkpoint")
    write_tiny_bert(folder / "checkpoints" / "tiny-bert")
    subprocess.run(["chmod", "-R", "a+rX", folder.parent], check=True)
    [port] = free_ports(1)
    project = Containers([PROJECT / "docker-compose.cpu.yml", folder / "stand_ins.json"], port)
    project.variables = {
        "COMPOSE_PROJECT_NAME": f"tessera-test-{os.getpid()}",
        "CHECKPOINTS": str(folder / "checkpoints"),
        "MODEL": "/checkpoints/tiny-checkpoint",
        "OPEN_FILES": str(min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
    }
    built = project.compose("build")
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    try:
        project.up()
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout", "5")


def check_vectors(containers: Containers) -> None:
    """Compare a text's and an image's embedding with the reference's."""
    query = QUERIES[0]
    text = containers.embed("tiny-checkpoint", INPUTS[query]["text"], "query")
    np.testing.assert_allclose(text, GOLDEN[query], atol=TOLERANCE)
    url = "data:image/png;base64," + base64.b64encode(read_image(IMAGE)).decode()
    image = containers.embed("tiny-checkpoint", url)
    np.testing.assert_allclose(image, GOLDEN[IMAGE], atol=TOLERANCE)


def test_a_text_and_an_image_get_the_right_vectors(containers):
    check_vectors(containers)


def test_no_container_runs_as_root_and_docker_finds_all_healthy(containers):
    for service in ("triton", "gateway"):
        assert containers.main_process(service).uids().effective == 1000
        wait_until(lambda: containers.inspect(service, "{{.State.Health.Status}}") == "healthy", 60)  # noqa: B023
    assert containers.inspect("export", "{{.Config.User}} {{.State.ExitCode}}") == "1000:1000 0"


@pytest.mark.parametrize("service", ["triton", "gateway"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_container_whose_main_process_is_lost_comes_back(containers, service, how):
    main = containers.main_process(service)
    main.send_signal(how)
    wait_until(lambda: not main.is_running() or main.status() == psutil.STATUS_ZOMBIE, 60)
    wait_until(lambda: is_ready(containers.url), READY_TIMEOUT_S)
    check_vectors(containers)
    if how == signal.SIGSTOP:
        assert "health check: SIGKILL to process" in containers.logs(service)


def test_a_lost_preprocessing_process_is_noticed_and_said(containers):
    main = containers.main_process("triton")
    stub = next(child for child in main.children() if child.name().startswith("triton_python_b"))
    stub.kill()
    wait_until(lambda: not main.is_running(), 60)
    wait_until(lambda: is_ready(containers.url), READY_TIMEOUT_S)
    check_vectors(containers)
    assert "it has lost a Python process" in containers.logs("triton")


def test_another_up_exports_nothing_and_restarts_nothing(containers):
    before = containers.inspect("triton", "{{.Id}} {{.State.StartedAt}}")
    containers.up()
    assert containers.inspect("triton", "{{.Id}} {{.State.StartedAt}}") == before
    assert "already contains tiny-checkpoint" in containers.logs("export").splitlines()[-1]


def test_the_gateway_counts_rates_in_redis(containers):
    key = {"sha256": hashlib.sha256(b"foo").hexdigest(), "requests_per_minute": 2}
    containers.up(GATEWAY_API_KEYS=json.dumps({"foo": key}), GATEWAY_RATE_STORE="redis://redis:6379/0")
    headers = {"authorization": "Bearer foo"}
    statuses = [httpx.get(f"{containers.url}/v1/models", headers=headers, timeout=30).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    counters = containers.compose("exec", "-T", "redis", "redis-cli", "dbsize").stdout
    assert int(counters) > 0
    assert "Redis" not in containers.logs("gateway")  # which it names where it is unreachable
    containers.up()


def test_another_precision_is_exported_and_served(containers):
    """By `up`, and by an export under a running Triton, which is started anew."""
    fingerprint = read_fingerprint(containers, "tiny-checkpoint")
    containers.up(PRECISION="int8")
    assert "its precision is fp32, and int8 is asked for" in containers.logs("export")
    wait_until(lambda: read_fingerprint(containers, "tiny-checkpoint") not in (fingerprint, None), READY_TIMEOUT_S)
    exported = containers.compose("run", "--rm", "export")
    assert exported.returncode == 0, exported.stderr
    wait_until(lambda: read_fingerprint(containers, "tiny-checkpoint") == fingerprint, READY_TIMEOUT_S)
    assert "the models have changed since it was started" in containers.logs("triton")
    check_vectors(containers)


def read_fingerprint(containers: Containers, model: str) -> str | None:
    """Return the fingerprint of what the gateway serves; None if it serves nothing at the moment."""
    body = {"model": model, "input": "a", "input_type": "query"}
    return httpx.post(f"{containers.url}/v1/embeddings", json=body, timeout=60).headers.get(FINGERPRINT_HEADER)


def list_models(containers: Containers) -> list[str]:
    response = httpx.get(f"{containers.url}/v1/models", timeout=30)
    return [model["id"] for model in response.json()["data"]] if response.status_code == 200 else []


def test_another_model_is_served_beside_the_first_and_can_be_removed(containers):
    containers.up(MODEL="/checkpoints/tiny-bert")
    wait_until(lambda: "tiny-bert" in list_models(containers), READY_TIMEOUT_S)
    assert len(containers.embed("tiny-bert", "Hello")) > 0
    check_vectors(containers)
    removed = containers.compose("run", "--rm", "export", "python", "-m", "deploy.remove_model", "tiny-bert")
    assert removed.returncode == 0, removed.stderr
    wait_until(lambda: list_models(containers) == ["tiny-checkpoint"], READY_TIMEOUT_S)
    containers.up()
    check_vectors(containers)


def test_a_corrupt_volume_is_repaired(containers):
    damage = "for path in /models/repository/*_embedder/1/*.data; do printf x | dd of=$path conv=notrunc; done"
    done = containers.compose("run", "--rm", "export", "sh", "-c", damage)
    assert done.returncode == 0, done.stderr
    containers.up()
    assert "tiny-checkpoint is damaged, and exported again: " in containers.logs("export")
    check_vectors(containers)


def test_a_wrong_model_is_named_and_leaves_the_service_alone(containers):
    refused = containers.compose("run", "--rm", "export", MODEL="/checkpoints/nothing")
    assert refused.returncode == 1
    said = refused.stdout + refused.stderr
    assert "error: /checkpoints/nothing is neither a folder nor a hub id" in said
    assert "Traceback" not in said
    check_vectors(containers)


def test_a_port_that_is_taken_is_named(containers):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = containers.compose("up", "--detach", GATEWAY_PORT=str(port))
    assert refused.returncode != 0
    assert str(port) in refused.stderr and "in use" in refused.stderr
    containers.up()


def test_temporary_files_are_bounded(containers):
    fill = "import os; open('/tmp/x', 'wb').write(bytes(1 << 27))"
    full = containers.compose("exec", "-T", "gateway", "python3", "-c", fill)
    assert "No space left on device" in full.stderr
    containers.compose("exec", "-T", "gateway", "rm", "/tmp/x")
