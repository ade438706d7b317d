"""The gateway's vocabulary: what can be embedded, what a client may ask for, and the words for both."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import Struct

from gateway.errors import DeadlineError, GatewayError

Modality: TypeAlias = Literal["text", "image", "text_image"]
InputType: TypeAlias = Literal["query", "passage"]
Truncate: TypeAlias = Literal["NONE", "START", "END"]
EmbeddingType: TypeAlias = Literal["float", "binary", "ubinary", "int8", "uint8"]
EncodingFormat: TypeAlias = Literal["float", "base64"]
Int8Scale: TypeAlias = Literal["fixed", "absmax"]


class ImageUrl(Struct, frozen=True):
    """An image that has yet to be fetched.

    Attributes:
        url: As the client wrote it; unchecked.
    """

    url: str


class TextItem(Struct, frozen=True):
    """A text."""

    text: str


class ImageItem(Struct, frozen=True):
    """An image.

    Attributes:
        image: The encoded file (PNG, JPEG, WebP or GIF), or its URL. The engine takes files only.
    """

    image: bytes | ImageUrl


class TextImageItem(Struct, frozen=True):
    """An image and a text that share one embedding.

    Attributes:
        text: The text beside the image.
        image: As in `ImageItem`.
    """

    text: str
    image: bytes | ImageUrl


class FailedItem(Struct, frozen=True):
    """An item that is reported instead of embedded, in requests with `on_error: item`.

    Attributes:
        error: What is wrong with it.
    """

    error: GatewayError


class TokensItem(Struct, frozen=True):
    """A text that the client has tokenised.

    Attributes:
        token_ids: Ids in the model's vocabulary.
    """

    token_ids: list[int]


ItemWithImage: TypeAlias = ImageItem | TextImageItem
Item: TypeAlias = TextItem | ItemWithImage | TokensItem
"""The closed union of what can be embedded. Dialects build items, the engine reads them."""


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """What a client asks for, independent of the dialect.

    Attributes:
        model: As the client wrote it, suffixes included.
        items: At least one.
        input_type: None where the request leaves it open.
        dimensions: None for the model's own.
        embedding_type: Type of the vectors' components.
        encoding_format: How vectors are written in the response.
        truncate: Which end of an over-long text is cut; `NONE` refuses it.
        isolate_errors: Whether an item that fails is reported in its place, instead of failing the request.
        fingerprint: Of the embedding space that the client expects, or None.
    """

    model: str
    items: Sequence[Item | FailedItem]
    input_type: InputType | None = None
    dimensions: int | None = None
    embedding_type: EmbeddingType = "float"
    encoding_format: EncodingFormat = "float"
    truncate: Truncate = "NONE"
    isolate_errors: bool = False
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment after which a response is no longer of use.

    Attributes:
        at_s: In seconds, on the clock of `time.monotonic`.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining_s(self) -> float:
        """Return the seconds left, above 0.

        Raises:
            DeadlineError: The deadline has passed.
        """
        left_s = self.at_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError
        return left_s
