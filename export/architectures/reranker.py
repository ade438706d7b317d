"""The plan that all text rerankers share; an architecture describes its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from export.architectures import GraphFiles, Plan
from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.text_embedder import RecordEncoder, SentenceHead, build_text_reranker
from export.graphs.weights import Weights
from export.names import RERANKER
from export.pairs import SAMPLE_QUERIES, check_pairs, encode_pair, encode_sample_pairs
from export.sample_texts import SAMPLE_TEXTS
from export.spec import Activation, ModelSpec, Precision, RankSpec, Target, is_tensorrt
from export.tokenizer import check_expansion, check_token_ids, load_tokenizer, prepare_tokenizer
from export.validation import ScoreAgreement
from export.validation.scores import compare_scores, score_with_graph

QUESTION, PASSAGE = "question:", " \n \n passage:"
"""What NVIDIA's rerankers have before query and document (source: their model cards and processors)."""

# Names of our activations by the names of PyTorch's classes.
_ACTIVATIONS: Mapping[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}


@dataclass(frozen=True)
class PairEncoder:
    """An encoder of a query with a document.

    Attributes:
        weights: Tensors of the checkpoint.
        record: Records it; it may declare the input `token_types`.
        head: What makes one score of its hidden states.
        vocab_size: Rows of its token embedding table.
        max_tokens: Longest sequence that it takes.
        rank: How pairs become sequences.
        query_prefix: Text put before a query.
        passage_prefix: Text put before a document, if it is one text with the query.
        is_bidirectional: Whether it is a Llama in which every token attends to all others.
        is_chat: Whether a text must not produce any added token, as these are the frame of a chat.
        answers: Ids of the next tokens of a text generator, the difference of whose logits is the score.
    """

    weights: Weights
    record: RecordEncoder
    head: SentenceHead
    vocab_size: int
    max_tokens: int
    rank: RankSpec
    query_prefix: str = ""
    passage_prefix: str = ""
    is_bidirectional: bool = False
    is_chat: bool = False
    answers: tuple[int, int] | None = None


def plan_text_reranker(checkpoint: Checkpoint, precision: Precision, target: Target, encoder: PairEncoder) -> Plan:
    """Return the plan of a text reranker: one graph.

    Args:
        checkpoint: The files.
        precision: Of the graph.
        target: Device that the graph will run on.
        encoder: What its architecture says.

    Raises:
        CheckpointError: A file is missing or asks for something that is not supported.
    """
    check_target(target)
    check_score(encoder.weights, encoder.head.dense[-1].name)
    limit = read_limit(checkpoint, encoder.max_tokens)
    spec = ModelSpec(
        architecture=checkpoint.config["model_type"],
        dimensions=1,
        vocab_size=encoder.vocab_size,
        max_query_tokens=limit,
        max_passage_tokens=limit,
        pooling=encoder.head.pooling,
        normalize=False,
        query_prefix=encoder.query_prefix,
        passage_prefix=encoder.passage_prefix,
        rank=encoder.rank,
    )
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, all_special=encoder.is_chat)
    check_token_ids(tokenizer, spec.vocab_size)
    check_expansion(tokenizer)
    check_pairs(tokenizer, spec)
    build = partial(build_text_reranker, encoder.weights, encoder.record, encoder.head, precision, target)
    return Plan(spec, tokenizer, {RERANKER: build}, partial(_compare, checkpoint, spec, encoder, tokenizer, target))


def _compare(
    checkpoint: Checkpoint, spec: ModelSpec, encoder: PairEncoder, tokenizer: bytes, target: Target, files: GraphFiles
) -> ScoreAgreement:
    from export.validation.reranker import score_with_transformers  # PyTorch takes seconds to import

    pairs = encode_sample_pairs(tokenizer, spec)
    expected = score_with_transformers(checkpoint, pairs, encoder.is_bidirectional, encoder.answers)
    return compare_scores(score_with_graph(files[RERANKER], pairs, target), expected)


def check_target(target: Target) -> None:
    """Refuse a target for which there are no rerankers.

    Raises:
        CheckpointError: It is TensorRT.
    """
    if is_tensorrt(target):
        raise CheckpointError(f"rerankers are exported for cpu and cuda only, not for {target}")


def check_score(weights: Weights, layer: str) -> None:
    """Refuse a classifier whose last layer has more than one label.

    Raises:
        CheckpointError: It has.
    """
    labels, *_ = weights.shape(f"{layer}.weight")
    if labels != 1:
        raise CheckpointError(f"the checkpoint is a classifier with {labels} labels; a reranker has one")


def read_limit(checkpoint: Checkpoint, max_tokens: int) -> int:
    """Return the longest sequence that encoder and tokenizer take."""
    limit = (checkpoint.json("tokenizer_config.json") or {}).get("model_max_length")
    if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < max_tokens:
        return int(limit)
    return max_tokens  # some tokenizers name a limit of 1e30


def read_activation(config: Mapping[str, Any]) -> Activation:
    """Return what sentence-transformers applies to the score of a cross-encoder with one label.

    Raises:
        CheckpointError: It is neither a sigmoid nor nothing.
    """
    ours = config.get("sentence_transformers") or {}
    name = str(ours.get("activation_fn") or config.get("sbert_ce_default_activation_function") or "Sigmoid")
    activation = _ACTIVATIONS.get(name.rsplit(".", 1)[-1])
    if activation is None:
        supported = " and ".join(_ACTIVATIONS)
        raise CheckpointError(f"config.json asks for the activation {name:.60}; only {supported} are supported")
    return activation


def read_cross_encoder(checkpoint: Checkpoint, types: int) -> RankSpec:
    """Return how a cross-encoder's tokenizer joins two texts.

    Args:
        checkpoint: The files.
        types: Rows of the encoder's table of token types.

    Raises:
        CheckpointError: The tokenizer joins them in another way than by special tokens around each.
    """
    tokenizer = load_tokenizer(prepare_tokenizer(checkpoint.tokenizer))
    probe = tokenizer.encode(SAMPLE_QUERIES[0], SAMPLE_TEXTS[0])
    places = probe.sequence_ids
    if 0 not in places or 1 not in places:
        raise CheckpointError("tokenizer.json makes no tokens of a text")
    query, document = places.index(0), places.index(1)
    query_end = document - places[document - 1 :: -1].index(0)
    document_end = len(places) - places[::-1].index(1)
    rank = RankSpec(
        read_activation(checkpoint.config),
        tuple(probe.ids[:query]),
        tuple(probe.ids[query_end:document]),
        tuple(probe.ids[document_end:]),
        token_types=types > 1 and any(probe.type_ids),
    )
    # With long enough sequences, no sample is cut.
    spec = ModelSpec("", 1, 0, 1 << 20, 1 << 20, "cls", rank=rank)
    for text in SAMPLE_TEXTS:
        expected = tokenizer.encode(SAMPLE_QUERIES[1], text)
        pair = encode_pair(tokenizer, spec, SAMPLE_QUERIES[1], text)
        if pair.input_ids != expected.ids or (rank.token_types and pair.token_types != expected.type_ids):
            raise CheckpointError("tokenizer.json joins a query and a document in a way that is not supported")
    return rank
