"""What one model's preprocessing needs to know, read from the `parameters` of its config.pbtxt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preprocess.images import Tiling


@dataclass(frozen=True)
class TextSettings:
    """How text becomes token ids.

    Attributes:
        query_prefix: Put before a query, its space included.
        passage_prefix: Put before a passage, its space included.
        max_query_tokens: Longest query, special and prefix tokens included.
        max_passage_tokens: Longest passage, special, prefix and image tokens included.
        vocab_size: Rows of the token embedding table.
        image_token_id: The id that stands for a row of `image_embeds`; None where the embedder takes no images.
        image_embeds_dim: Width of a row of `image_embeds`; 0 where the embedder takes no images.
    """

    query_prefix: str
    passage_prefix: str
    max_query_tokens: int
    max_passage_tokens: int
    vocab_size: int
    image_token_id: int | None
    image_embeds_dim: int

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> TextSettings:
        """Read from a model configuration's parameters."""
        image_token_id = parameters.get("image_token_id")
        return cls(
            query_prefix=parameters.get("query_prefix", ""),
            passage_prefix=parameters.get("passage_prefix", ""),
            max_query_tokens=int(parameters["max_query_tokens"]),
            max_passage_tokens=int(parameters["max_passage_tokens"]),
            vocab_size=int(parameters["vocab_size"]),
            image_token_id=None if image_token_id is None else int(image_token_id),
            image_embeds_dim=int(parameters.get("image_embeds_dim", "0")),
        )


@dataclass(frozen=True)
class ImageSettings:
    """How a picture becomes tiles and stands in a prompt.

    Attributes:
        prefix: Text between the passage prefix and the image tokens.
        suffix: Text between the image tokens and the item's text.
        tiling: How pictures are cut.
        workers: Processes that decode pictures.
    """

    prefix: str
    suffix: str
    tiling: Tiling
    workers: int

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> ImageSettings:
        """Read from a model configuration's parameters."""
        return cls(
            prefix=parameters["image_prefix"],
            suffix=parameters["image_suffix"],
            tiling=Tiling(
                tile_size=int(parameters["tile_size"]),
                max_tiles=int(parameters["max_tiles"]),
                use_thumbnail=parameters["use_thumbnail"] == "true",
            ),
            workers=int(parameters.get("decode_workers", "2")),
        )
