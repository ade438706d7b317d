"""Decoders of the Llama kind as encoders: Llama, Qwen3, Gemma 3, from packed token vectors to hidden states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from export.graphs.attention import Heads
from export.graphs.blocks import EVERYTHING, Reach
from export.graphs.layers import Batch, HeadNorms, Layers, Sequences
from export.graphs.rope import rope_frequencies


@dataclass(frozen=True)
class LayerKind:
    """What layers of one kind have in common.

    Attributes:
        rope: Config of the rotary positions, as `rope_frequencies` reads it.
        reach: Which rows of its sequence a row attends to.
    """

    rope: Mapping[str, Any]
    reach: Reach = EVERYTHING


@dataclass(frozen=True)
class DecoderStyle:
    """How a family of decoders differs from Llama.

    Attributes:
        normalizes_heads: Whether each query and key head is normalised before it is rotated (`q_norm`, `k_norm`).
        normalizes_outputs: Whether the outputs of attention and MLP are normalised before they are added.
        scale_offset: Added to the stored scales of normalisations.
        activation: Of the MLP's gate.
        scales_embeddings: Whether token embeddings are multiplied by the square root of their width.
    """

    normalizes_heads: bool = False
    normalizes_outputs: bool = False
    scale_offset: float = 0.0
    activation: str = "silu"
    scales_embeddings: bool = False


LLAMA = DecoderStyle()
QWEN3 = DecoderStyle(normalizes_heads=True)
GEMMA3 = DecoderStyle(
    normalizes_heads=True,
    normalizes_outputs=True,
    scale_offset=1.0,
    activation="gelu_pytorch_tanh",
    scales_embeddings=True,
)


@dataclass(frozen=True)
class Decoder:
    """A recorder of one decoder.

    Attributes:
        layers: The graph and the checkpoint.
        config: Config of the language model.
        style: Its family.
        prefix: Prefix of the tensors, empty or ending in a point.
    """

    layers: Layers
    config: Mapping[str, Any]
    style: DecoderStyle = LLAMA
    prefix: str = ""

    def embed(self, input_ids: ir.Value) -> ir.Value:
        """Return the embeddings of tokens `(tokens,)` int64, `(tokens, hidden size)` float32."""
        hidden = self.layers.embedding(input_ids, f"{self.prefix}embed_tokens")
        if self.style.scales_embeddings:
            hidden = self.layers.op.Mul(hidden, float(self.config["hidden_size"] ** 0.5))
        return hidden

    def cut(self, lengths: ir.Value, rows: ir.Value, kind: LayerKind) -> Sequences:
        """Record the layout of a batch for layers of one kind; see `Layers.sequences`."""
        heads = read_heads(self.config)
        frequencies = rope_frequencies(kind.rope, heads.size)
        return self.layers.sequences(Batch(lengths, rows, heads, frequencies, reach=kind.reach))

    def record(self, hidden: ir.Value, sequences: Sequence[Sequences]) -> ir.Value:
        """Record all layers and the final normalisation.

        Args:
            hidden: Embedded input, `(tokens, hidden size)` float32.
            sequences: For each layer, the sequences of the batch.

        Returns:
            Hidden states `(tokens, hidden size)`.
        """
        for index in range(self.config["num_hidden_layers"]):
            with self.layers.op.scope(f"layer.{index}"):
                hidden = self._layer(f"{self.prefix}layers.{index}", hidden, sequences[index])
        return self._norm(hidden, f"{self.prefix}norm")

    def _layer(self, name: str, hidden: ir.Value, sequences: Sequences) -> ir.Value:
        layers, op = self.layers, self.layers.op
        with op.scope("attention"):
            normalized = self._norm(hidden, f"{name}.input_layernorm")
            attended = self._attention(f"{name}.self_attn", normalized, sequences)
            if self.style.normalizes_outputs:
                attended = self._norm(attended, f"{name}.post_attention_layernorm")
            hidden = layers.add(hidden, attended)
        with op.scope("mlp"):
            before = "pre_feedforward_layernorm" if self.style.normalizes_outputs else "post_attention_layernorm"
            outer = self._mlp(f"{name}.mlp", self._norm(hidden, f"{name}.{before}"))
            if self.style.normalizes_outputs:
                outer = self._norm(outer, f"{name}.post_feedforward_layernorm")
            return layers.add(hidden, outer)

    def _attention(self, name: str, hidden: ir.Value, sequences: Sequences) -> ir.Value:
        norms = None
        if self.style.normalizes_heads:
            epsilon, offset = self.config["rms_norm_eps"], self.style.scale_offset
            norms = HeadNorms(f"{name}.q_norm", f"{name}.k_norm", epsilon, offset)
        attended = sequences.attend(hidden, f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj", norms)
        return self.layers.linear(attended, f"{name}.o_proj")

    def _mlp(self, name: str, hidden: ir.Value) -> ir.Value:
        gate, up, down = (f"{name}.{matrix}" for matrix in ("gate_proj", "up_proj", "down_proj"))
        return self.layers.gated_feed_forward(hidden, gate, up, down, self.style.activation)

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        return self.layers.rms_norm(x, name, self.config["rms_norm_eps"], self.style.scale_offset)


def read_heads(config: Mapping[str, Any]) -> Heads:
    """Return the division into heads that a config describes."""
    query = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // query
    return Heads(query, config.get("num_key_value_heads") or query, size)
