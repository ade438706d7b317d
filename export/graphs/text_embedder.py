"""A text embedder or reranker around any encoder: packed token ids in, one embedding or score per sequence out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from export.graphs.builder import GraphBuilder, build_model
from export.graphs.layers import Layers, Precision, Sequences
from export.graphs.pooling import Pooling, normalize_rows
from export.graphs.targets import Target, bind_layers
from export.graphs.weights import Weights

RecordEncoder = Callable[[Layers, ir.Value, ir.Value], tuple[ir.Value, Sequences]]
"""Records an encoder.

Its arguments are the graph, `input_ids` `(tokens,)` int64, and the length of each sequence `(sequences,)` int64. It
returns the hidden states `(tokens, hidden size)` and the layout of the sequences.
"""


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer after pooling, as `Dense` of sentence-transformers.

    Attributes:
        name: Its tensors are `<name>.weight` `(outputs, inputs)` and optionally `<name>.bias`.
        outputs: Components that it returns.
        activation: Name of the function that follows; None for none.
        norm: Layer normalisation that follows, `<norm>.weight`, with its epsilon; None for none.
    """

    name: str
    outputs: int
    activation: str | None = None
    norm: tuple[str, float] | None = None


@dataclass(frozen=True)
class SentenceHead:
    """What makes one embedding of the hidden states of a sequence.

    Attributes:
        pooling: How the last hidden states become one vector.
        dense: Linear layers that follow, in order.
        normalize: Whether embeddings have length 1.
    """

    pooling: Pooling
    dense: Sequence[DenseLayer] = ()
    normalize: bool = True

    def count_dimensions(self, width: int) -> int:
        """Return the components of an embedding, for hidden states of some width."""
        return self.dense[-1].outputs if self.dense else width


def build_text_embedder(
    weights: Weights,
    record_encoder: RecordEncoder,
    width: int,
    head: SentenceHead,
    precision: Precision = "fp32",
    target: Target = "cpu",
) -> ir.Model:
    """Build the embedder of a text encoder.

    Args:
        weights: Tensors of the checkpoint.
        record_encoder: Records the encoder.
        width: Width of its hidden states.
        head: What follows it.
        precision: Precision of matrices and their products.
        target: Device that the graph will run on.

    Returns:
        A model with the inputs `input_ids` int64 `(tokens,)` and `sequence_lengths` int32 `(sequences,)`, and the
        output `embeddings` float32 `(sequences, dimensions)`, NaN for a sequence of length 0.
    """
    op, embeddings = _record(weights, record_encoder, head, precision, target)
    return build_model(op, "text_embedder", "embeddings", embeddings, head.count_dimensions(width))


def build_text_reranker(
    weights: Weights,
    record_encoder: RecordEncoder,
    head: SentenceHead,
    precision: Precision = "fp32",
    target: Target = "cpu",
) -> ir.Model:
    """Build the reranker of a text encoder, whose sequences are a query and a document each.

    Args:
        weights: Tensors of the checkpoint.
        record_encoder: Records the encoder, which may declare further inputs.
        head: What follows it, up to a single component.
        precision: Precision of matrices and their products.
        target: Device that the graph will run on.

    Returns:
        A model with the inputs of `build_text_embedder`, those of the encoder, and the output `scores` float32
        `(sequences,)`, NaN for a sequence of length 0.
    """
    op, rows = _record(weights, record_encoder, head, precision, target)
    return build_model(op, "text_reranker", "scores", op.Reshape(rows, [-1]))


def _record(
    weights: Weights, record_encoder: RecordEncoder, head: SentenceHead, precision: Precision, target: Target
) -> tuple[GraphBuilder, ir.Value]:
    op = GraphBuilder()
    layers = bind_layers(op, weights, precision, target)
    input_ids = op.input("input_ids", ir.DataType.INT64, ["tokens"])
    sequence_lengths = op.input("sequence_lengths", ir.DataType.INT32, ["sequences"])
    lengths = op.Cast(sequence_lengths, to=ir.DataType.INT64)
    hidden, sequences = record_encoder(layers, input_ids, lengths)
    return op, record_head(layers, hidden, sequences, head)


def record_head(layers: Layers, hidden: ir.Value, sequences: Sequences, head: SentenceHead) -> ir.Value:
    """Record what makes embeddings of hidden states.

    Args:
        layers: The graph and the checkpoint.
        hidden: Hidden states `(tokens, hidden size)`.
        sequences: The layout of their sequences.
        head: What to record.

    Returns:
        Embeddings `(sequences, dimensions)` float32, NaN for a sequence of length 0.
    """
    op = layers.op
    with op.scope("pooling"):
        embeddings = sequences.pool(hidden, head.pooling)
    # In int8, these few products would lose more than they save.
    dense = replace(layers, precision="fp32") if layers.precision == "int8" else layers
    for layer in head.dense:
        with op.scope(layer.name):
            embeddings = dense.linear(embeddings, layer.name)
            if layer.activation:
                embeddings = dense.activation(embeddings, layer.activation)
            if layer.norm:
                embeddings = dense.layer_norm(embeddings, *layer.norm)
    embeddings = layers.widen(embeddings)
    if head.normalize:
        with op.scope("normalize"):
            embeddings = normalize_rows(op, embeddings)
    return embeddings
