"""The same weights in PyTorch: transformers' modules, with padded sequences or with nested tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, LlamaModel, SiglipVisionModel

from bench.gpu.onnx_engine import Device, Run
from bench.gpu.workloads import Batch
from export.checkpoint import Checkpoint
from export.validation.nemotron_vl import (
    assemble_tiles,
    load_language_model,
    load_projector,
    load_vision_model,
    shuffle_pixels,
)

Layout = Literal["padded", "varlen"]
LAYOUTS: tuple[Layout, ...] = ("padded", "varlen")
ATTENTION = "bidirectional"


@dataclass(frozen=True)
class Towers:
    """The modules of transformers that make up the model, on one device.

    Attributes:
        config: The checkpoint's `config.json`.
        language: Llama, with attention in both directions.
        vision: SigLIP.
        projector: From shuffled patches to image tokens.
    """

    config: Mapping[str, Any]
    language: LlamaModel
    vision: SiglipVisionModel
    projector: nn.Module

    def parts(self) -> Iterator[nn.Module]:
        """Yield the modules."""
        yield from (self.language, self.vision, self.projector)

    def convert(self, dtype: torch.dtype) -> None:
        """Convert all weights, but not the frequencies of the positions, as transformers loads them."""
        for part in self.parts():
            for parameter in part.parameters():
                parameter.data = parameter.data.to(dtype)

    def compile(self) -> None:
        """Compile each layer for each shape that it meets, which takes seconds rather than a model's minutes."""
        torch._dynamo.config.recompile_limit = 64  # one for each shape
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # instead of going on without a word
        for layer in (*self.language.layers, *self.vision.vision_model.encoder.layers):
            layer.compile(dynamic=False)


def load_towers(folder: Path, device: Device) -> Towers:
    """Load the weights of a checkpoint in float32."""
    AttentionInterface.register(ATTENTION, attend)
    checkpoint = Checkpoint(folder)
    config, weights = checkpoint.config, checkpoint.weights
    with torch.no_grad():
        language = load_language_model(config["llm_config"], weights)
        language.config._attn_implementation = ATTENTION
        towers = Towers(config, language, load_vision_model(config["vision_config"], weights), load_projector(weights))
        for part in towers.parts():
            part.to(device)
    return towers


class TorchEngine:
    """The model in PyTorch, with scaled dot-product attention.

    Args:
        name: Name in tables.
        towers: Its modules; several engines may share them.
        layout: Whether sequences are padded to the longest of their batch, or end to end as a nested tensor.
    """

    def __init__(self, name: str, towers: Towers, layout: Layout) -> None:
        self.name = name
        self._towers, self._layout = towers, layout
        self._device = towers.language.device
        self._dtype = towers.language.dtype

    def prepare(self, batch: Batch) -> Run:
        """Copy token ids and pixels to the device."""
        lengths = torch.tensor([len(item.input_ids) for item in batch])
        sequences = [torch.tensor(item.input_ids) for item in batch]
        images = [torch.from_numpy(item.patches) for item in batch if item.patches is not None]
        patches = torch.cat(images).to(self._device) if images else None
        if self._layout == "padded":
            ids = nn.utils.rnn.pad_sequence(sequences, batch_first=True).to(self._device)
            arguments = make_padded_arguments(lengths, self._dtype, self._device)
        else:
            ids = torch.cat(sequences)[None].to(self._device)
            arguments = make_varlen_arguments(lengths, self._device)
        lengths = lengths.to(self._device)

        def run() -> NDArray[np.float32]:
            with torch.inference_mode():
                hidden = self._embed(ids, patches, arguments)
                embeddings = functional.normalize(self._pool(hidden, lengths), dim=-1)
                array: NDArray[np.float32] = embeddings.cpu().numpy()
                return array

        return run

    def _embed(self, ids: torch.Tensor, patches: torch.Tensor | None, arguments: Mapping[str, Any]) -> torch.Tensor:
        """Return the last hidden states (sequences, tokens, width)."""
        towers = self._towers
        embedded = towers.language.embed_tokens(ids)
        if patches is not None:
            is_image = ids == towers.config["img_context_token_id"]
            embedded = embedded.masked_scatter(is_image[..., None], self._encode(patches))
        hidden: torch.Tensor = towers.language(inputs_embeds=embedded, use_cache=False, **arguments).last_hidden_state
        return hidden

    def _encode(self, patches: torch.Tensor) -> torch.Tensor:
        towers = self._towers
        block = round(1 / towers.config["downsample_ratio"])
        tiles = assemble_tiles(patches, towers.config["vision_config"], block).to(self._dtype)
        vectors: torch.Tensor = towers.projector(shuffle_pixels(towers.vision(tiles).last_hidden_state, block))
        return vectors

    def _pool(self, hidden: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the mean over the tokens of each sequence in float32, (sequences, width)."""
        if self._layout == "varlen":
            return torch.segment_reduce(hidden[0].float(), "mean", lengths=lengths)
        is_token = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        return (hidden.float() * is_token[..., None]).sum(dim=1) / lengths[:, None]


def make_padded_arguments(lengths: torch.Tensor, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return Llama's arguments for padded sequences: no mask if all have the same length, which is the fastest."""
    longest = int(lengths.max())
    if (lengths == longest).all():
        return {}
    is_padding = torch.arange(longest) >= lengths[:, None]
    mask = torch.zeros(is_padding.shape, dtype=dtype).masked_fill(is_padding, torch.finfo(dtype).min)
    return {"attention_mask": mask[:, None, None].expand(-1, 1, longest, -1).to(device)}


def make_varlen_arguments(lengths: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Return Llama's arguments for sequences end to end, of which each counts its positions from 0."""
    offsets = functional.pad(lengths.cumsum(0), (1, 0))
    positions = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(lengths)
    return {
        "position_ids": positions[None].to(device),
        "offsets": offsets.to(device),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
    }


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    offsets: torch.Tensor | None = None,
    shortest: int = 0,
    longest: int = 0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention in both directions, as transformers calls it.

    Args:
        module: Not used.
        query: `(sequences, heads, tokens, head size)`.
        key: The same with fewer heads, each of which serves several of the query's.
        value: Like `key`.
        attention_mask: Added to the scores; None if there is no padding.
        offsets: Where each sequence begins and the last one ends, if all are in one row; None if they are padded.
        shortest: Tokens of the shortest sequence, if all are in one row.
        longest: Tokens of the longest sequence, if all are in one row.

    Returns:
        `(sequences, tokens, heads, head size)`, and no weights.
    """
    if offsets is None and attention_mask is None:
        return functional.scaled_dot_product_attention(query, key, value, enable_gqa=True).transpose(1, 2), None
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if offsets is None:
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return attended.transpose(1, 2), None
    return attend_nested(query, key, value, offsets, shortest, longest), None


@torch.compiler.disable  # type: ignore[untyped-decorator]  # nested tensors in compiled code are new: around it, the layer is compiled
def attend_nested(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, offsets: torch.Tensor, shortest: int, longest: int
) -> torch.Tensor:
    """Compute attention within each of the sequences in one row: `(1, heads, tokens, head size)`."""

    def nest(rows: torch.Tensor) -> torch.Tensor:
        packed = rows[0].transpose(0, 1).contiguous()
        nested = torch.nested.nested_tensor_from_jagged(packed, offsets, min_seqlen=shortest, max_seqlen=longest)
        return nested.transpose(1, 2)

    attended = functional.scaled_dot_product_attention(nest(query), nest(key), nest(value))
    return attended.transpose(1, 2).values()[None]
