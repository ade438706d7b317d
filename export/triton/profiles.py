"""Optimisation profiles of TensorRT engines: the sizes of batches for which an engine is built, written beside a graph.

Triton picks the profile for each batch whose optimum is nearest to it; a batch that fits none fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from export import names
from export.serving import ServingSpec
from export.spec import ImageTowerSpec, ModelSpec

PROFILES_FILE = "profiles.json"
ENGINE_FILE = "model.plan"

_QUERY_TOKENS = 512  # of the most queries in a batch for which there is a profile of its own
_ITEMS_PER_REQUEST = 32  # at most, as GATEWAY_CHUNK_ITEMS is by default


@dataclass(frozen=True)
class Sizes:
    """Elements of an input, which has rank 1: the fewest, those that the engine is fastest for, and the most."""

    min: int
    opt: int
    max: int

    def times(self, factor: int) -> Sizes:
        """Return the sizes of an input with so many elements for each of these."""
        return Sizes(self.min * factor, self.opt * factor, self.max * factor)


Profile = Mapping[str, Sizes]  # input → its sizes


def list_profiles(step: str, spec: ModelSpec, serving: ServingSpec) -> dict[str, Profile]:
    """Return the profiles of a graph by name, in the order of their numbers."""
    if step == names.VISION_ENCODER:
        return {"tiles": _tiles(spec, serving)}
    requests = serving.embedder.max_batch_size
    most = max(serving.embedder.max_batch_rows, spec.max_tokens)  # a batch of one request has as many as its text
    few = min(_QUERY_TOKENS, most)
    sequences = requests * _ITEMS_PER_REQUEST
    profiles = {
        "queries": _texts(spec, Sizes(1, min(32, few), few), Sizes(1, 2, max(requests, 2))),
        "passages": _texts(spec, Sizes(1, (most + 1) // 2, most), Sizes(1, min(16, sequences), sequences)),
    }
    if spec.image and spec.image_embeds_dim is not None:
        usual = min(4 * spec.image.max_tiles_with_thumbnail * spec.image.tokens_per_tile, most)
        pages = _texts(spec, Sizes(1, usual, most), Sizes(1, min(4, sequences), sequences))
        rows = Sizes(1, usual, most + sequences)  # image tokens, and a row for each text
        profiles["pages"] = {**pages, "image_embeds": rows.times(spec.image_embeds_dim)}
    return profiles


def render_profiles(profiles: Mapping[str, Profile]) -> str:
    """Return profiles as JSON: for each by its name, the sizes by input."""
    described = {name: {tensor: asdict(sizes) for tensor, sizes in p.items()} for name, p in profiles.items()}
    return json.dumps(described, indent=1) + "\n"


def _texts(spec: ModelSpec, tokens: Sizes, sequences: Sizes) -> Profile:
    """Return the profile of a batch of texts, each of which brings one row of `image_embeds` that is never read."""
    profile = {"input_ids": tokens, "sequence_lengths": sequences}
    if spec.image_embeds_dim is None:
        return profile
    return {**profile, "image_embeds": sequences.times(spec.image_embeds_dim), "image_rows": sequences}


def _tiles(spec: ModelSpec, serving: ServingSpec) -> Profile:
    if spec.image is None:
        raise ValueError("a model without images has no vision encoder")
    page = spec.image.max_tiles_with_thumbnail
    most = max(serving.vision_encoder.max_batch_rows // spec.image.tokens_per_tile, page)
    tiles = Sizes(1, page, most)
    patches = {"patches": tiles.times(spec.image.tokens_per_tile * spec.image.bytes_per_row)}
    if not isinstance(spec.image, ImageTowerSpec):
        return patches
    items = serving.vision_encoder.max_batch_size * _ITEMS_PER_REQUEST  # those that failed have no tile
    return {**patches, "image_rows": Sizes(1, page, max(items, most))}
