"""The closed union of things that can be embedded. Dialects build items; the engine reads them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Modality: TypeAlias = Literal["text", "image", "text_image"]
InputType: TypeAlias = Literal["query", "passage"]
Truncate: TypeAlias = Literal["NONE", "START", "END"]


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image that still lies elsewhere.

    Attributes:
        url: as the client wrote it; unchecked.
    """

    url: str


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageItem:
    """A picture.

    Attributes:
        image: the encoded file (PNG, JPEG, WebP or GIF), or where it lies; the engine takes files only.
    """

    image: bytes | ImageUrl


@dataclass(frozen=True, slots=True)
class TextImageItem:
    """A picture and a text that make one embedding together.

    Attributes:
        text: what stands beside the picture.
        image: as in `ImageItem`.
    """

    text: str
    image: bytes | ImageUrl


@dataclass(frozen=True, slots=True)
class TokensItem:
    """A text that the client tokenised itself.

    Attributes:
        token_ids: ids of the model's vocabulary, without special tokens and prefix.
    """

    token_ids: list[int]


PicturedItem: TypeAlias = ImageItem | TextImageItem
Item: TypeAlias = TextItem | PicturedItem | TokensItem
