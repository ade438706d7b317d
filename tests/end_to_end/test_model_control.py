"""Models come, are replaced and go while a service answers requests."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.end_to_end.samples import IMAGE_URL, TINY, TINY_CHECKPOINT
from tests.service import PROJECT, Service, run_service, wait_until

pytestmark = [pytest.mark.triton, pytest.mark.slow]

SECOND = "tiny/second"
FOLLOW_TIMEOUT_S = 60.0
FINGERPRINT = "x-embedding-fingerprint"
TEXT = "What is the weather like? " * 20
CONTENTS = [TEXT, IMAGE_URL]


def run(*command: str, **environment: str) -> None:
    subprocess.run([sys.executable, "-m", *command], cwd=PROJECT, check=True, env=os.environ | environment)


def export(repository: Path, public_id: str, *options: str) -> None:
    run("export", str(TINY_CHECKPOINT), "--name", public_id, "--repository", str(repository), *options)


def embed(client: httpx.Client, content: str, model: str = TINY) -> httpx.Response:
    return client.post("/v1/embeddings", json={"model": model, "input": [content], "input_type": "passage"})


def read_vector(response: httpx.Response) -> npt.NDArray[np.float64]:
    return np.array(response.json()["data"][0]["embedding"])


def list_models(client: httpx.Client) -> set[str]:
    return {model["id"] for model in client.get("/v1/models").json()["data"]}


class Load:
    """Clients that embed one text, or one image, again and again.

    Attributes:
        responses: What they got.
    """

    def __init__(self, url: str, contents: list[str]) -> None:
        self.responses: list[tuple[str, httpx.Response]] = []
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._embed, args=(content,)) for content in contents]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _embed(self, content: str) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._stopping.is_set():
                self.responses.append((content, embed(client, content)))

    def wait_for_fingerprint(self, fingerprint: str) -> None:
        def has_come() -> bool:
            recent = dict(self.responses[-20:])
            return all(response.headers.get(FINGERPRINT) == fingerprint for response in recent.values())

        wait_until(has_come, FOLLOW_TIMEOUT_S)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("changing") / "repository"
    export(path, TINY)
    return path


@pytest.fixture(scope="module")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_service(repository, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.http_url, timeout=120) as connected:
        yield connected


def test_a_replaced_model_never_gives_a_vector_under_the_other_fingerprint(
    service: Service, repository: Path, client: httpx.Client
) -> None:
    triton = service.find("tritonserver")
    before = {content: embed(client, content) for content in CONTENTS}
    with Load(service.http_url, CONTENTS * 3) as load:
        export(repository, TINY, "--precision", "int8", "--replace")
        wait_until(
            lambda: embed(client, TEXT).headers[FINGERPRINT] != before[TEXT].headers[FINGERPRINT], FOLLOW_TIMEOUT_S
        )
        after = {content: embed(client, content) for content in CONTENTS}
        load.wait_for_fingerprint(after[TEXT].headers[FINGERPRINT])
    assert {response.status_code for _, response in load.responses} == {200}
    expected = {
        (content, response.headers[FINGERPRINT]): read_vector(response)
        for group in (before, after)
        for content, response in group.items()
    }
    assert len(expected) == 4
    found = set()
    for content, response in load.responses:
        key = (content, response.headers[FINGERPRINT])
        found.add(key)
        np.testing.assert_allclose(read_vector(response), expected[key], atol=1e-5)
    assert found == expected.keys()
    for content in CONTENTS:  # so that one would be noticed in place of the other
        difference = read_vector(before[content]) - read_vector(after[content])
        assert np.abs(difference).max() > 1e-4
    assert triton.is_running() and service.is_ready()


def test_a_model_is_added_and_removed_and_the_others_are_not_disturbed(
    service: Service, repository: Path, client: httpx.Client
) -> None:
    triton = service.find("tritonserver")
    with Load(service.http_url, CONTENTS) as load:
        assert embed(client, TEXT, SECOND).status_code == 404
        export(repository, SECOND)
        wait_until(lambda: embed(client, TEXT, SECOND).status_code == 200, FOLLOW_TIMEOUT_S)
        wait_until(lambda: list_models(client) == {TINY, SECOND}, 10)
        assert embed(client, IMAGE_URL, SECOND).status_code == 200
        run("deploy.remove_model", SECOND, REPOSITORY=str(repository))
        wait_until(lambda: embed(client, TEXT, SECOND).status_code == 404, FOLLOW_TIMEOUT_S)
        wait_until(lambda: list_models(client) == {TINY}, 10)
    assert {response.status_code for _, response in load.responses} == {200}
    assert triton.is_running() and service.is_ready()


def test_a_removed_model_completes_what_it_has_begun(service: Service, repository: Path, client: httpx.Client) -> None:
    export(repository, SECOND)
    wait_until(lambda: embed(client, TEXT, SECOND).status_code == 200, FOLLOW_TIMEOUT_S)
    statuses: list[int] = []

    def embed_until_gone() -> None:
        with httpx.Client(base_url=service.http_url, timeout=120) as own:
            while not statuses or statuses[-1] == 200:
                statuses.append(embed(own, TEXT, SECOND).status_code)

    thread = threading.Thread(target=embed_until_gone)
    thread.start()
    run("deploy.remove_model", SECOND, REPOSITORY=str(repository))
    thread.join()
    assert set(statuses) == {200, 404}


def test_a_damaged_replacement_leaves_the_old_model_served(
    service: Service, repository: Path, client: httpx.Client
) -> None:
    before = embed(client, TEXT)
    graph = repository / "tiny_checkpoint_embedder" / "1" / "model.onnx"
    intact = graph.read_bytes()
    graph.unlink()  # what Triton reads is a link to the same file
    graph.write_bytes(intact[:-1] + b"x")
    wait_until(lambda: "the old one is still served" in service.output_path.read_text(), FOLLOW_TIMEOUT_S)
    assert "model.onnx has sha256" in service.output_path.read_text()
    assert embed(client, TEXT).json()["data"] == before.json()["data"]
    triton = service.find("tritonserver")
    triton.kill()
    wait_until(lambda: not triton.is_running() and embed(client, TEXT).status_code == 200, FOLLOW_TIMEOUT_S)
    assert embed(client, TEXT).json()["data"] == before.json()["data"]
    graph.write_bytes(intact)


def test_a_model_that_triton_cannot_load_is_unavailable_until_it_is_replaced(
    service: Service, repository: Path, client: httpx.Client
) -> None:
    export(repository, SECOND)
    config = repository / "second_embedder" / "config.pbtxt"
    intact = config.read_text()
    config.write_text(intact.replace('name: "input_ids"', 'name: "no_such_input"'))
    wait_until(lambda: embed(client, TEXT, SECOND).status_code == 503, FOLLOW_TIMEOUT_S)
    ready = client.get("/v1/health/ready")
    assert ready.status_code == 200 and "unavailable" in ready.text
    assert embed(client, TEXT).status_code == 200
    config.write_text(intact)
    wait_until(lambda: embed(client, TEXT, SECOND).status_code == 200, FOLLOW_TIMEOUT_S)


def test_nobody_can_let_triton_load_a_model(service: Service) -> None:
    with InferenceServerClient(service.grpc_url) as triton:
        with pytest.raises(InferenceServerException, match="not allowed if polling is enabled"):
            triton.load_model("tiny_checkpoint_text")
        with pytest.raises(InferenceServerException, match="not allowed if polling is enabled"):
            triton.unload_model("tiny_checkpoint_text")
