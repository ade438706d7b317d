"""A padded encoder, as optimum exports it, inside the ragged contract: rows are padded for it, and packed again."""

import onnx
import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.builder import IR_VERSION, GraphBuilder, build_model
from export.graphs.layers import Batch, Layers
from export.graphs.packed import row_numbers
from export.graphs.text_embedder import SentenceHead, record_head
from export.graphs.weights import Weights

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What a padded encoder may take, `(sequences, longest)` int64 each; it returns `last_hidden_state`."""

_PREFIX = "encoder/"
_LENGTHS, _ROWS = "padded_lengths", "padded_rows"


def wrap_padded_encoder(
    encoder: onnx.ModelProto, weights: Weights, head: SentenceHead, width: int, pad_token_id: int
) -> ir.Model:
    """Return the embedder around a padded encoder, with the inputs and the output of `build_text_embedder`.

    All sequences of a batch are padded to the longest of them: a long one makes the others as slow as itself.

    Args:
        encoder: The encoder; its inputs are among `INPUTS`.
        weights: Tensors of the checkpoint, for the dense layers of the head.
        head: What makes one embedding of the hidden states of a sequence.
        width: Width of the hidden states.
        pad_token_id: Id of what sequences are padded with.
    """
    [opset] = (entry.version for entry in encoder.opset_import if not entry.domain)
    inputs = [value.name for value in encoder.graph.input]
    encoder = onnx.compose.add_prefix(encoder, _PREFIX)
    encoder.ir_version = IR_VERSION
    padding, pooling = (_to_proto(model, opset) for model in (_pad(inputs, pad_token_id), _pool(weights, head, width)))
    padded = onnx.compose.merge_models(padding, encoder, [(f"padded_{name}", _PREFIX + name) for name in inputs])
    links = [(f"{_PREFIX}last_hidden_state", "hidden"), (_LENGTHS, "lengths"), (_ROWS, "rows")]
    return ir.from_proto(onnx.compose.merge_models(padded, pooling, links))


def _to_proto(model: ir.Model, opset: int) -> onnx.ModelProto:
    model.graph.opset_imports[""] = opset  # merged models must agree; the operators here have not changed
    return ir.to_proto(model)


def _pad(inputs: list[str], pad_token_id: int) -> ir.Model:
    """Return the graph from packed token ids to padded ones; it passes on the lengths and the number of rows."""
    op = GraphBuilder()
    with op.scope("padding"):
        input_ids = op.input("input_ids", ir.DataType.INT64, ["tokens"])
        sequence_lengths = op.input("sequence_lengths", ir.DataType.INT32, ["sequences"])
        lengths, rows = op.Cast(sequence_lengths, to=ir.DataType.INT64), op.Shape(input_ids)
        starts = op.Unsqueeze(op.CumSum(lengths, 0, exclusive=1), [1])
        column = op.Unsqueeze(row_numbers(op, op.ReduceMax(lengths, keepdims=1)), [0])
        is_token = op.Less(column, op.Unsqueeze(lengths, [1]))
        ids = op.Gather(input_ids, op.Where(is_token, op.Add(starts, column), 0))
        mask = op.Cast(is_token, to=ir.DataType.INT64)
        padded = {
            "input_ids": op.Where(is_token, ids, pad_token_id),
            "attention_mask": mask,
            "token_type_ids": op.Mul(mask, 0),
        }
        outputs = {f"padded_{name}": padded[name] for name in inputs}
        outputs |= {_LENGTHS: op.Identity(lengths), _ROWS: rows}
    for name, value in outputs.items():
        value.name, value.type = name, ir.TensorType(ir.DataType.INT64)
        value.shape = ir.Shape([None] * (1 if value in (outputs[_LENGTHS], outputs[_ROWS]) else 2))
    return ir.Model(op.build("padding", list(outputs.values())), ir_version=IR_VERSION)


def _pool(weights: Weights, head: SentenceHead, width: int) -> ir.Model:
    """Return the graph from padded hidden states to embeddings."""
    op = GraphBuilder()
    layers = Layers(op, weights)
    with op.scope("packing"):
        hidden = op.input("hidden", ir.DataType.FLOAT, ["sequences", "longest", width])
        lengths = op.input("lengths", ir.DataType.INT64, ["sequences"])
        rows = op.input("rows", ir.DataType.INT64, [1])
        sequences = layers.sequences(Batch(lengths, rows, Heads(1, 1, width)))
        longest = op.Shape(hidden, start=1, end=2)
        place = op.Add(op.Mul(sequences.packing.sequence, longest), sequences.packing.position)
        packed = op.Gather(op.Reshape(hidden, [-1, width]), place)
    embeddings = record_head(layers, packed, sequences, head)
    return build_model(op, "text_embedder", "embeddings", embeddings, head.count_dimensions(width))
