"""Embeddings from the whole service equal those of transformers on the same weights, whatever shares their batches."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from openai import OpenAI
from tokenizers import Tokenizer
from tritonclient.grpc import InferenceServerClient

from tests.end_to_end.samples import MINILM
from tests.service import Service

pytestmark = pytest.mark.triton

TOLERANCE = 1e-4
Vectors = npt.NDArray[np.float32]


def embed(client: OpenAI, texts: list[str]) -> Vectors:
    response = client.embeddings.create(model=MINILM, input=texts, extra_body={"truncate": "END"})
    assert [entry.index for entry in response.data] == list(range(len(texts)))
    return np.array([entry.embedding for entry in response.data], dtype=np.float32)


def test_all_sentences_in_one_request(client: OpenAI, sentences: list[str], reference: Vectors) -> None:
    np.testing.assert_allclose(embed(client, sentences), reference, atol=TOLERANCE)


def test_one_sentence_per_request(client: OpenAI, sentences: list[str], reference: Vectors) -> None:
    for sentence, expected in zip(sentences[::4], reference[::4], strict=True):
        np.testing.assert_allclose(embed(client, [sentence])[0], expected, atol=TOLERANCE)


def test_float_and_base64_carry_the_same_numbers(client: OpenAI) -> None:
    as_base64 = client.embeddings.create(model=MINILM, input="Hello")  # the client's default, decoded by it
    as_float = client.embeddings.create(model=MINILM, input="Hello", encoding_format="float")
    np.testing.assert_allclose(as_float.data[0].embedding, as_base64.data[0].embedding, rtol=1e-6)


def test_other_requests_do_not_change_an_embedding(client: OpenAI, sentences: list[str], reference: Vectors) -> None:
    """Send the same sentences in a list of 64, and alone while other clients send other texts."""
    chosen = list(range(0, 200, 10))
    in_list = embed(client, [sentences[index] for index in chosen] + sentences[100:144])[: len(chosen)]
    np.testing.assert_allclose(in_list, reference[chosen], atol=TOLERANCE)
    others = [sentences[start : start + size] for start in range(0, 180, 3) for size in (1, 7, 20)]
    with ThreadPoolExecutor(33) as threads:
        concurrent = [threads.submit(embed, client, texts) for texts in others]
        alone = [threads.submit(embed, client, [sentences[index]]) for index in chosen]
        for index, future in zip(chosen, alone, strict=True):
            np.testing.assert_allclose(future.result()[0], reference[index], atol=TOLERANCE)
        starts = [start for start in range(0, 180, 3) for _ in range(3)]
        for start, texts, future in zip(starts, others, concurrent, strict=True):
            np.testing.assert_allclose(future.result(), reference[start : start + len(texts)], atol=TOLERANCE)


def test_usage_counts_the_reference_tokenizers_tokens(client: OpenAI, sentences: list[str], checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    expected = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(sentences))
    response = client.embeddings.create(model=MINILM, input=sentences, extra_body={"truncate": "END"})
    assert response.usage.prompt_tokens == response.usage.total_tokens == expected


def test_the_published_semantic_search_ranks_the_pets_first(client: OpenAI) -> None:
    documents = [
        "The cat sat on the mat",
        "Dogs are loyal companions",
        "Python is a programming language",
        "Machine learning models require training data",
        "The weather is sunny today",
    ]
    query, *vectors = embed(client, ["pets and animals", *documents])
    ranked = sorted(documents, key=lambda document: -float(vectors[documents.index(document)] @ query))
    assert set(ranked[:2]) == {"The cat sat on the mat", "Dogs are loyal companions"}


def test_single_item_clients_share_batches(service: Service, client: OpenAI, reference: Vectors) -> None:
    """Check by Triton's statistics that 64 concurrent clients share batches, and that every embedding is right."""

    def count() -> tuple[int, int]:
        with InferenceServerClient(service.grpc_url) as triton:
            [stats] = triton.get_inference_statistics("all_minilm_l6_v2_embedder").model_stats
        return stats.inference_count, stats.execution_count

    texts = ["What is NVIDIA?", "x", "Hello", "The cat sat on the mat", "Dogs are loyal companions"] * 100
    before = count()
    with ThreadPoolExecutor(64) as threads:
        vectors = list(threads.map(lambda value: embed(client, [value])[0], texts))
    inferences, executions = (after - earlier for after, earlier in zip(count(), before, strict=True))
    for position in range(5):
        repeats = np.stack(vectors[position::5])
        np.testing.assert_allclose(repeats, np.broadcast_to(repeats[0], repeats.shape), atol=1e-5)
    # How many share one depends on how busy the machine is, so the benchmarks measure that.
    assert inferences < len(texts), "the gateway combined no requests"
    assert executions < inferences, "Triton batched none of them"
