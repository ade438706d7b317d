"""Text encoders of the BERT family, with or without sentence-transformers files."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.graphs.bert import build_bert_embedder, max_tokens
from export.names import EMBEDDER
from export.onnx_files import open_graph
from export.plan import GraphFiles, Plan
from export.sample_texts import SAMPLE_TEXTS
from export.sentence_transformers import SentenceEmbedding, read_sentence_embedding
from export.spec import ModelSpec, Precision
from export.tokenizer import prepare_tokenizer
from export.validation import Agreement, compare_embeddings

WORD_EMBEDDINGS = "word_embeddings.weight"


def plan(checkpoint: Checkpoint, precision: Precision) -> Plan:
    """Return the plan of a text encoder: one graph, the embedder.

    Raises:
        CheckpointError: a file is missing or asks for what the graph cannot do.
        KeyError: `config.json` lacks a number.
    """
    sentence = read_sentence_embedding(checkpoint)
    spec = _spec(checkpoint, sentence)
    tokenizer = prepare_tokenizer(checkpoint.tokenizer, lowercase=sentence.lowercase)
    build = partial(
        build_bert_embedder, checkpoint.config, checkpoint.weights, sentence.pooling, sentence.normalize, precision
    )
    compare = partial(_compare, checkpoint, sentence, tokenizer, spec.max_tokens)
    return Plan(spec, tokenizer, {EMBEDDER: build}, compare)


def _spec(checkpoint: Checkpoint, sentence: SentenceEmbedding) -> ModelSpec:
    config = checkpoint.config
    positions = max_tokens(config)
    limit = min(sentence.max_tokens or positions, positions)
    return ModelSpec(
        architecture=config["model_type"],
        dimensions=config["hidden_size"],
        vocab_size=_vocab_size(checkpoint),
        max_query_tokens=limit,
        max_passage_tokens=limit,
        pooling=sentence.pooling,
        normalize=sentence.normalize,
        query_prefix=sentence.query_prefix,
        passage_prefix=sentence.passage_prefix,
    )


def _vocab_size(checkpoint: Checkpoint) -> int:
    """Return the rows of the token embedding table, whatever the prefix of its name."""
    weights = checkpoint.weights
    tables = [name for name in weights.names if name.endswith(WORD_EMBEDDINGS)]
    if len(tables) != 1:
        raise CheckpointError(f"the checkpoint has {len(tables)} tensors named {WORD_EMBEDDINGS}, not one")
    return weights.shape(tables[0])[0]


def _compare(
    checkpoint: Checkpoint, sentence: SentenceEmbedding, tokenizer: bytes, limit: int, files: GraphFiles
) -> Agreement:
    """Embed the sample texts by the written graph, in one packed batch, and by transformers, one after another."""
    from export.reference.bert import embed_with_transformers

    ids = _tokenize(tokenizer, [sentence.passage_prefix + text for text in SAMPLE_TEXTS], limit)
    found = _run(files, ids)
    expected = embed_with_transformers(checkpoint.folder, ids, sentence.pooling, sentence.normalize)
    return compare_embeddings(found, expected)


def _tokenize(tokenizer: bytes, texts: list[str], limit: int) -> list[list[int]]:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_str(tokenizer.decode())
    loaded.enable_truncation(limit)
    return [encoding.ids for encoding in loaded.encode_batch(texts)]


def _run(files: GraphFiles, ids: list[list[int]]) -> NDArray[np.float32]:
    session = open_graph(files[EMBEDDER])
    inputs = {
        "input_ids": np.concatenate([np.asarray(sequence, np.int64) for sequence in ids]),
        "sequence_lengths": np.asarray([len(sequence) for sequence in ids], np.int32),
    }
    embeddings: NDArray[np.float32] = session.run(["embeddings"], inputs)[0]
    return embeddings
