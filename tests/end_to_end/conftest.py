import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from openai import OpenAI
from tritonclient.grpc import InferenceServerClient

from export.progress import Progress
from export.sources import resolve
from tests.end_to_end.samples import MINILM, RERANKER, TINY, TINY_CHECKPOINT
from tests.sentences import load_sentences
from tests.service import PROJECT, Service, run_service


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the real all-MiniLM-L6-v2 and the reference's tiny checkpoint from the command line."""
    path = tmp_path_factory.mktemp("models") / "repository"
    for arguments in ([MINILM], [str(TINY_CHECKPOINT), "--name", TINY]):
        command = [sys.executable, "-m", "export", *arguments, "--repository", str(path)]
        subprocess.run(command, cwd=PROJECT, check=True)
    return path


@pytest.fixture(scope="session")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_service(repository, tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small cross-encoder with random weights."""
    from tests.export.tiny_rerankers import RERANKERS

    return RERANKERS["bert"](tmp_path_factory.mktemp("rerankers") / "bert")


@pytest.fixture(scope="session")
def ranking_service(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve the cross-encoder beside a model that embeds."""
    path = tmp_path_factory.mktemp("ranking_models") / "repository"
    for arguments in ([str(reranker), "--name", RERANKER], [str(TINY_CHECKPOINT), "--name", TINY]):
        command = [sys.executable, "-m", "export", *arguments, "--repository", str(path)]
        subprocess.run(command, cwd=PROJECT, check=True)
    with run_service(path, tmp_path_factory.mktemp("ranking_service")) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.http_url}/v1", api_key="none", max_retries=0) as connected:
        yield connected


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return load_sentences()


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """Return the folder with the published files of all-MiniLM-L6-v2."""
    return resolve(MINILM, None, Progress()).folder


@pytest.fixture(scope="session")
def reference(sentences: list[str], checkpoint: Path) -> npt.NDArray[np.float32]:
    """Embed the sentences one by one with transformers on the same weights, as an array of shape (200, 384)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    vectors = []
    with torch.inference_mode():
        for sentence in sentences:
            encoded = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt")
            pooled = model(**encoded).last_hidden_state[0].mean(dim=0)
            vectors.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.stack(vectors)


@pytest.fixture
def triton(service: Service) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(service.grpc_url) as connected:
        yield connected
