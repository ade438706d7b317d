"""What an exported model is, in numbers: everything that its Triton configuration is written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "cuda"]
Pooling = Literal["mean", "cls", "max"]
Modality = Literal["text", "image"]

# The most that a parameter takes on the disk: in int8 graphs, token embeddings stay float16.
BYTES_PER_PARAMETER: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 2}


@dataclass(frozen=True)
class ImageSpec:
    """How pictures become rows of the embedder's input."""

    token_id: int
    prefix: str
    suffix: str
    tile_size: int  # pixels
    max_tiles: int  # without the thumbnail
    use_thumbnail: bool
    tokens_per_tile: int

    @property
    def max_tiles_with_thumbnail(self) -> int:
        """The most tiles that one picture becomes."""
        return self.max_tiles + (1 if self.use_thumbnail and self.max_tiles > 1 else 0)


@dataclass(frozen=True)
class ModelSpec:
    """The numbers of one checkpoint."""

    architecture: str
    dimensions: int
    vocab_size: int  # rows of the token embedding table
    max_query_tokens: int
    max_passage_tokens: int
    pooling: Pooling
    normalize: bool = True  # embeddings have length 1
    query_prefix: str = ""
    passage_prefix: str = ""
    image_embeds_dim: int | None = None  # the width of the language model, where it takes images
    image: ImageSpec | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The kinds of input that have an ensemble."""
        return ("text", "image") if self.image else ("text",)

    @property
    def max_tokens(self) -> int:
        """The longest sequence, special, prefix and image tokens included."""
        return max(self.max_query_tokens, self.max_passage_tokens)


@dataclass(frozen=True)
class ServingSpec:
    """How Triton runs a model: batching, threads, instances. All of it may be edited later in `config.pbtxt`."""

    target: Target = "cpu"
    preprocess_batch_size: int = 64  # requests
    preprocess_instances: int = 1
    embedder_batch_size: int = 64  # requests, each of several items
    vision_batch_size: int = 8  # requests, each of several tiles
    embedder_instances: int = 1
    intra_op_threads: int | None = None  # None: as many as there are cores
    max_queue_delay_us: int = 0  # how long a batch waits for company


@dataclass(frozen=True)
class Identity:
    """What the ensembles say of themselves to whoever discovers them. Absent values are not known yet."""

    public_id: str
    precision: Precision = "fp32"
    license: str = ""
    fingerprint: str | None = None
    manifest: str | None = None  # JSON


@dataclass(frozen=True)
class ServedModel:
    """One public id: what it is, how it runs and what it says of itself."""

    identity: Identity
    spec: ModelSpec
    serving: ServingSpec = field(default_factory=ServingSpec)
