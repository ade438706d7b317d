"""The numbers and the identity of an exported model, from which its Triton configuration is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["cpu", "cuda", "tensorrt", "tensorrt-dense"]
Pooling = Literal["mean", "cls", "max", "last"]
Modality = Literal["text", "image"]
Task = Literal["embed", "rank"]
Activation = Literal["sigmoid", "identity"]
Resample = Literal["bilinear", "bicubic", "lanczos"]

IMAGE_TOKEN_BYTES = 32 * 32 * 3
"""Size of the pixels that become one token of a language model."""

# Maximum size of a parameter on the disk; token embeddings are float16 in int8 graphs.
BYTES_PER_PARAMETER: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 2}


def is_tensorrt(target: Target) -> bool:
    """Return whether a target runs engines that TensorRT makes of the graphs."""
    return target in ("tensorrt", "tensorrt-dense")


@dataclass(frozen=True)
class ImageSpec:
    """How images become rows of the embedder's input.

    Attributes:
        token_id: Id of the image token.
        prefix: Text before the image tokens.
        suffix: Text between the image tokens and the text of an item.
        tile_size: Side of a tile, in pixels.
        max_tiles: Maximum number of tiles of an image, the thumbnail excluded.
        use_thumbnail: Whether images of several tiles get a thumbnail as a further tile.
        tokens_per_tile: Image tokens of a tile.
    """

    token_id: int
    prefix: str
    suffix: str
    tile_size: int
    max_tiles: int
    use_thumbnail: bool
    tokens_per_tile: int

    @property
    def max_tiles_with_thumbnail(self) -> int:
        """Maximum number of tiles of an image, the thumbnail included."""
        return self.max_tiles + (1 if self.use_thumbnail and self.max_tiles > 1 else 0)

    @property
    def bytes_per_row(self) -> int:
        """Size of a row of `patches`, which becomes one image token."""
        return IMAGE_TOKEN_BYTES


@dataclass(frozen=True)
class ImageTowerSpec:
    """How images become rows of the input of an image tower, which embeds them without a language model.

    Attributes:
        image_size: Width and height of the tower's input, in pixels.
        patch_size: Width and height of a patch, in pixels. Pixels to the right of the last whole patch, and below it,
            are left out.
        shortest_edge: Length that the shorter side of an image is resized to, in pixels, before the middle is cut out;
            None if images are resized to the tower's input whatever their proportions.
        resample: Filter by which they are resized.
        scale: Factor of the pixels, from 0 to 255, before they are normalised.
        mean: Subtracted from each of the channels red, green and blue.
        std: By which each of them is then divided.
    """

    image_size: int
    patch_size: int
    shortest_edge: int | None
    resample: Resample
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def tokens_per_tile(self) -> int:
        """Patches of an image, which is one tile."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def max_tiles_with_thumbnail(self) -> int:
        """Maximum number of tiles of an image."""
        return 1

    @property
    def bytes_per_row(self) -> int:
        """Size of a row of `patches`, which is one patch."""
        return self.patch_size**2 * 3


@dataclass(frozen=True)
class RankSpec:
    """How a reranker reads a query with a document, and what its score is.

    A sequence is `head`, the query, `middle`, the document and `tail`. A model with `passage_prefix` reads query and
    document as one text, `query_prefix` + query + `passage_prefix` + document, and has no `middle`.

    Attributes:
        activation: Function that makes a relevance of the score, which is a logit.
        head: Token ids before the query.
        middle: Token ids between query and document.
        tail: Token ids after the document.
        token_types: Whether the graph is told which tokens are the document's.
    """

    activation: Activation
    head: tuple[int, ...] = ()
    middle: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    token_types: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """The numbers of one checkpoint.

    Attributes:
        architecture: `model_type` of `config.json`.
        dimensions: Components of an embedding; 1 for a reranker, whose score it is.
        vocab_size: Rows of the token embedding table.
        max_query_tokens: Longest query, special and prefix tokens included.
        max_passage_tokens: Longest passage, special, prefix and image tokens included.
        pooling: How the last hidden states of a sequence become one vector.
        normalize: Whether embeddings have length 1.
        query_prefix: Text put before a query.
        passage_prefix: Text put before a passage.
        image_embeds_dim: Width of the language model that reads images; None without one.
        image: How images are preprocessed, for the language model or for a tower of their own; None without images.
        rank: How a reranker reads pairs; None for an embedding model.
    """

    architecture: str
    dimensions: int
    vocab_size: int
    max_query_tokens: int
    max_passage_tokens: int
    pooling: Pooling
    normalize: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    image_embeds_dim: int | None = None
    image: ImageSpec | ImageTowerSpec | None = None
    rank: RankSpec | None = None

    @property
    def task(self) -> Task:
        """What the model does."""
        return "rank" if self.rank else "embed"

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that have an ensemble."""
        return ("text", "image") if self.image else ("text",)

    @property
    def max_tokens(self) -> int:
        """The longest sequence, special, prefix and image tokens included."""
        return max(self.max_query_tokens, self.max_passage_tokens)


@dataclass(frozen=True)
class Identity:
    """What the ensembles publish about the model; None before the weights are known."""

    public_id: str
    precision: Precision = "fp32"
    license: str = ""
    fingerprint: str | None = None
    manifest: str | None = None  # JSON
    golden: str | None = None  # JSON
