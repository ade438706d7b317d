"""Models of every text architecture side by side in one Triton, alone and under load, against transformers."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from export.architectures.sentence_transformers import read_sentence_embedding
from export.checkpoint import Checkpoint
from export.tokenizer import load_tokenizer
from export.validation.text import embed_with_transformers
from tests.export.tiny_bert import write_json
from tests.export.tiny_text_models import WRITERS, write_padded
from tests.sentences import load_sentences
from tests.service import Service, export_all, run_service

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    written = {kind: write(folder / kind) for kind, write in WRITERS.items()}
    prompts = {"query": "", "Clustering": "task: clustering | query: "}
    write_json(written["gemma3_text"] / "config_sentence_transformers.json", {"prompts": prompts})
    return written | {"distilbert": write_padded(folder / "distilbert", "distilbert")}


@pytest.fixture(scope="module")
def service(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    repository = tmp_path_factory.mktemp("models") / "repository"
    export_all({f"tiny/{kind}": folder for kind, folder in checkpoints.items()}, repository)
    with run_service(repository, tmp_path_factory.mktemp("service")) as running:
        yield running


def embed_by_reference(folder: Path, texts: list[str], prefix: str) -> np.ndarray:
    checkpoint = Checkpoint(folder)
    tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # they are text, in a text as in a prompt
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


@pytest.mark.parametrize(
    ("kind", "fields", "prompt"),
    [
        ("qwen3", {"instruction": "sort [CLS] jokes"}, "Instruct: sort [CLS] jokes\nQuery:"),
        ("qwen3", {"prompt_name": "query"}, "Instruct: find\nQuery:"),
        ("gemma3_text", {"prompt_name": "Clustering"}, "task: clustering | query: "),
        ("gemma3_text", {"prompt_name": "clustering"}, "task: clustering | query: "),
    ],
)
def test_prompted_vectors_equal_those_of_the_prompt_and_the_text(
    service: Service, checkpoints: dict[str, Path], kind: str, fields: dict[str, str], prompt: str
) -> None:
    texts = [sentence[:30] for sentence in load_sentences()[:5]]
    body = {"model": f"tiny/{kind}", "input": texts, **fields}
    response = httpx.post(f"{service.http_url}/v1/embeddings", json=body, timeout=120)
    assert response.status_code == 200, response.text
    found = np.array([entry["embedding"] for entry in response.json()["data"]])
    np.testing.assert_allclose(found, embed_by_reference(checkpoints[kind], texts, prompt), atol=1e-4)
    assert np.abs(found - embed_by_reference(checkpoints[kind], texts, "")).max() > 1e-2


def test_manifests_tell_how_the_graphs_work_on_batches(service: Service) -> None:
    models = httpx.get(f"{service.http_url}/v1/manifest").json()["data"]
    layouts = {model["public_id"].removeprefix("tiny/"): model["layout"] for model in models}
    assert layouts == dict.fromkeys(WRITERS, "ragged") | {"distilbert": "padded"}
