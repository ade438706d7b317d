"""What is asked for and what is answered, in no dialect."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.engine import ServedModel
from gateway.items import InputType, Item, Truncate
from gateway.postprocess import EmbeddingType, EncodingFormat


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """What a client asks for, in no dialect.

    Attributes:
        model: as the client wrote it, suffixes included.
        items: at least one.
        input_type: None where the request leaves it open.
        dimensions: None for the model's own.
        embedding_type: of the values.
        encoding_format: of the vectors in the answer.
        truncate: which end of too long a text goes.
    """

    model: str
    items: Sequence[Item]
    input_type: InputType | None = None
    dimensions: int | None = None
    embedding_type: EmbeddingType = "float"
    encoding_format: EncodingFormat = "float"
    truncate: Truncate = "NONE"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost, in tokens and otherwise.

    Attributes:
        text_tokens: special and prefix tokens included.
        image_tokens: of all tiles.
        tiles: thumbnails included.
        image_bytes: of encoded pictures.
    """

    text_tokens: int
    image_tokens: int
    tiles: int
    image_bytes: int

    @property
    def total_tokens(self) -> int:
        """Text and image tokens together."""
        return self.text_tokens + self.image_tokens


@dataclass(frozen=True, slots=True)
class EmbeddingsResult:
    """What the client gets, in no dialect.

    Attributes:
        model: that answered.
        vectors: one per item, as `postprocess.encode` returns them.
        usage: exact counts.
        stage_s: seconds spent in each stage, by its name.
    """

    model: ServedModel
    vectors: list[Any]
    usage: Usage
    stage_s: dict[str, float]
