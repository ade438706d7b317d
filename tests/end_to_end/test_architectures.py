"""Models of every text architecture side by side in one Triton, alone and under load, against transformers."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from export.architectures.sentence_transformers import read_sentence_embedding
from export.checkpoint import Checkpoint
from export.tokenizer import load_tokenizer
from export.validation.text import embed_with_transformers
from tests.export.tiny_text_models import WRITERS, write_padded
from tests.sentences import load_sentences
from tests.service import PROJECT, Service, run_service

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    written = {kind: write(folder / kind) for kind, write in WRITERS.items()}
    return written | {"distilbert": write_padded(folder / "distilbert", "distilbert")}


@pytest.fixture(scope="module")
def service(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("models") / "repository"
    for kind, folder in checkpoints.items():
        arguments = [str(folder), "--name", f"tiny/{kind}", "--repository", str(repository)]
        subprocess.run([sys.executable, "-m", "export", *arguments], cwd=PROJECT, check=True)
    with run_service(repository, tmp_path_factory.mktemp("service")) as running:
        yield running


def embed_by_reference(folder: Path, texts: list[str], prefix: str) -> np.ndarray:
    checkpoint = Checkpoint(folder)
    tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = [tokenizer.encode(prefix + text).ids for text in texts]
    is_bidirectional = checkpoint.config["model_type"] == "llama_bidirec"
    return embed_with_transformers(checkpoint, ids, read_sentence_embedding(checkpoint).head, is_bidirectional)


async def test_vectors_equal_transformers_under_load(service: Service, checkpoints: dict[str, Path]) -> None:
    texts = [sentence[: 3 + 7 * index % 40] for index, sentence in enumerate(load_sentences()[:24])]
    expected = {
        (kind, input_type): embed_by_reference(folder, texts, prefix)
        for kind, folder in checkpoints.items()
        for input_type, prefix in (("passage", ""), ("query", "Instruct: find\nQuery:" if kind == "qwen3" else ""))
    }
    async with httpx.AsyncClient(base_url=service.http_url, timeout=120) as http:

        async def embed(kind: str, input_type: str, start: int, stop: int) -> None:
            body = {"model": f"tiny/{kind}", "input": texts[start:stop], "input_type": input_type}
            response = await http.post("/v1/embeddings", json=body)
            assert response.status_code == 200, response.text
            found = np.array([entry["embedding"] for entry in response.json()["data"]])
            np.testing.assert_allclose(found, expected[kind, input_type][start:stop], atol=1e-4)

        cuts = [0, 1, 4, 9, len(texts)]
        pieces = list(itertools.pairwise(cuts))
        await asyncio.gather(*(embed(*key, *piece) for _ in range(3) for key in expected for piece in pieces))


def test_manifests_tell_how_the_graphs_work_on_batches(service: Service) -> None:
    models = httpx.get(f"{service.http_url}/v1/manifest").json()["data"]
    layouts = {model["public_id"].removeprefix("tiny/"): model["layout"] for model in models}
    assert layouts == dict.fromkeys(WRITERS, "ragged") | {"distilbert": "padded"}
