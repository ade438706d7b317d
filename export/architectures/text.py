"""The plan that all text embedders share; an architecture describes its encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir

from export.architectures import GraphFiles, Layout, Plan
from export.architectures.sentence_transformers import SentenceEmbedding, read_sentence_embedding
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.text_embedder import SentenceHead
from export.names import EMBEDDER
from export.sample_texts import QUALITY_TEXTS, SAMPLE_TEXTS
from export.spec import ModelSpec, Precision, Target
from export.tokenizer import check_expansion, check_prefixes, check_token_ids, prepare_tokenizer
from export.validation import Agreement, RunGraph


@dataclass(frozen=True)
class TextEncoder:
    """An encoder of texts.

    Attributes:
        build: Builds the embedder around it; `partial(build_text_embedder, weights, record, width)`, if it is ragged.
        width: Width of its hidden states.
        vocab_size: Rows of its token embedding table.
        max_tokens: Longest sequence that it takes.
        is_bidirectional: Whether every token attends to all others, whatever transformers' own class does.
    """

    build: Callable[[SentenceHead, Precision, Target], ir.Model]
    width: int
    vocab_size: int
    max_tokens: int
    is_bidirectional: bool = False


def plan_text_embedder(
    checkpoint: Checkpoint,
    precision: Precision,
    target: Target,
    encoder: TextEncoder,
    sentence: SentenceEmbedding | None = None,
    layout: Layout = "ragged",
) -> Plan:
    """Return the plan of a text embedder: one graph.

    Args:
        checkpoint: The files.
        precision: Of the graph.
        target: Device that the graph will run on.
        encoder: What its architecture says.
        sentence: How a text becomes one vector; None for what the files of sentence-transformers say.
        layout: How the graph works on batches.

    Raises:
        CheckpointError: A file is missing or asks for something that is not supported.
    """
    sentence = sentence or read_sentence_embedding(checkpoint)
    spec = _spec(checkpoint, encoder, sentence)
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, lowercase=sentence.lowercase)
    check_token_ids(tokenizer, spec.vocab_size)
    check_expansion(tokenizer)
    check_prefixes(tokenizer, spec)
    build = partial(encoder.build, sentence.head, precision, target)
    texts = SAMPLE_TEXTS if precision == "fp32" else QUALITY_TEXTS
    compare = partial(_compare, checkpoint, spec, encoder, sentence, tokenizer, target, texts)
    embed_samples = partial(_embed_samples, spec, tokenizer, target)
    graphs = {EMBEDDER: build}
    return Plan(spec, tokenizer, graphs, compare, layout, prompts=sentence.prompts, embed_samples=embed_samples)


def _compare(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    encoder: TextEncoder,
    sentence: SentenceEmbedding,
    tokenizer: bytes,
    target: Target,
    texts: Sequence[str],
    files: GraphFiles,
) -> Agreement:
    from export.validation.text import compare_with_transformers  # PyTorch takes seconds to import

    return compare_with_transformers(
        checkpoint, spec, tokenizer, sentence.head, encoder.is_bidirectional, files[EMBEDDER], target, texts
    )


def _embed_samples(spec: ModelSpec, tokenizer: bytes, target: Target, files: GraphFiles, run: RunGraph) -> None:
    from export.validation.text import embed_with_graph

    embed_with_graph(spec, tokenizer, files[EMBEDDER], target, SAMPLE_TEXTS, run)


def _spec(checkpoint: Checkpoint, encoder: TextEncoder, sentence: SentenceEmbedding) -> ModelSpec:
    limit = min(sentence.max_tokens or encoder.max_tokens, encoder.max_tokens)
    return ModelSpec(
        architecture=checkpoint.config["model_type"],
        dimensions=sentence.head.count_dimensions(encoder.width),
        vocab_size=encoder.vocab_size,
        max_query_tokens=limit,
        max_passage_tokens=limit,
        pooling=sentence.head.pooling,
        normalize=sentence.head.normalize,
        query_prefix=sentence.query_prefix,
        passage_prefix=sentence.passage_prefix,
    )


def count_rows(checkpoint: Checkpoint, table: str, what: str) -> int:
    """Return the number of rows of an embedding table.

    Raises:
        CheckpointError: Its rows are not as wide as the hidden states.
    """
    shape, width = checkpoint.weights.shape(table), checkpoint.config["hidden_size"]
    if len(shape) != 2 or shape[1] != width:
        raise CheckpointError(f"hidden_size is {width}, but the {what} have the shape {shape}")
    return shape[0]
