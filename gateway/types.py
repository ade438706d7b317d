"""The gateway's vocabulary: what can be embedded and ranked, what a client may ask for, and the words for both."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from msgspec import Struct

from gateway.errors import DeadlineError, GatewayError

Task: TypeAlias = Literal["embed", "rank"]
Modality: TypeAlias = Literal["text", "image", "text_image"]
InputType: TypeAlias = Literal["query", "passage"]
Truncate: TypeAlias = Literal["NONE", "START", "END"]
EmbeddingType: TypeAlias = Literal["float", "binary", "ubinary", "int8", "uint8"]
ComponentType: TypeAlias = EmbeddingType | Literal["float16"]
EncodingFormat: TypeAlias = Literal["float", "base64"]
Endianness: TypeAlias = Literal["little", "big"]
Int8Scale: TypeAlias = Literal["fixed", "absmax"]
Combine: TypeAlias = Literal["mean", "none"]


class FileUrl(Struct, frozen=True):
    """A file that has yet to be fetched.

    Attributes:
        url: As the client wrote it; unchecked.
    """

    url: str


class TextItem(Struct, frozen=True):
    """A text."""

    text: str


class ImageItem(Struct, frozen=True):
    """An image, or a page of a PDF.

    Attributes:
        file: A PNG, JPEG, WebP or GIF, or its URL; of a page, the PDF. The engine takes files only.
        page: Number of the page, from 1; 0 for an image.
    """

    file: bytes | FileUrl
    page: int = 0


class TextImageItem(Struct, frozen=True):
    """An image and a text that share one embedding.

    Attributes:
        text: The text beside the image.
        file: As in `ImageItem`.
    """

    text: str
    file: bytes | FileUrl


class DocumentItem(Struct, frozen=True):
    """A PDF, which becomes one `ImageItem` for each page before it reaches the engine.

    Attributes:
        file: The PDF, or its URL.
    """

    file: bytes | FileUrl


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
"""The closed union of what the engine embeds, and ranks."""

ItemWithFile: TypeAlias = ItemWithImage | DocumentItem
RequestItem: TypeAlias = Item | DocumentItem
"""The closed union of what dialects build."""


class Place(Struct, frozen=True):
    """What a vector stands for.

    Attributes:
        index: Position of the item in the client's input.
        part: Position in the item's content, if each part has a vector.
        page: Number of the page in a PDF, from 1.
    """

    index: int
    part: int | None = None
    page: int | None = None


class Client(Struct, frozen=True):
    """Whose share of the engine a request counts against.

    Attributes:
        name: Of the API key, or the client's address.
        weight: Of the client's share among the shares of all.
    """

    name: str = ""
    weight: float = 1.0


class VectorFormat(Struct, frozen=True):
    """One way of writing the vectors of a response.

    Attributes:
        dimensions: None for the model's own.
        component_type: Type of the vectors' components.
        encoding_format: How vectors are written in the response.
        endianness: Byte order of what is encoded as base64.
    """

    dimensions: int | None = None
    component_type: ComponentType = "float"
    encoding_format: EncodingFormat = "float"
    endianness: Endianness = "little"


class PromptName(Struct, frozen=True):
    """The name of one of the model's prompts.

    Attributes:
        name: As the client wrote it.
        is_required: Whether a model without such a prompt is an error, and not used without it.
    """

    name: str
    is_required: bool = True


class Instruction(Struct, frozen=True):
    """A task in the client's words, for models that are trained to follow it.

    Attributes:
        text: Of the task.
    """

    text: str


Prompt: TypeAlias = PromptName | Instruction


class TokenLimit(Struct, frozen=True):
    """A limit of tokens per item that the client sets.

    Attributes:
        field: Name of the limit in the request, for errors.
        max_tokens: Special, prefix and image tokens included.
    """

    field: str
    max_tokens: int


class InferenceRequest(Struct, frozen=True, kw_only=True):
    """What requests for every task have in common, independent of the dialect.

    Attributes:
        task: What the model has to do.
        model: As the client wrote it, suffixes included; empty for the only model that does this.
        items: At least one.
        places: What each of the items stands for; None: each is an item of the client's input.
        truncate: Which end of an over-long text is cut; `NONE` refuses it.
        isolate_errors: Whether an item that fails is reported in its place, instead of failing the request.
        fingerprint: Of the weights, precision and preprocessing that the client expects, or None.
        token_limit: None for the model's own.
        user: As the client wrote it; only its hash may be logged.
    """

    task: ClassVar[Task]
    model: str
    items: Sequence[RequestItem | FailedItem]
    places: Sequence[Place] | None = None
    truncate: Truncate = "NONE"
    isolate_errors: bool = False
    fingerprint: str | None = None
    token_limit: TokenLimit | None = None
    user: str | None = None


class EmbeddingsRequest(InferenceRequest, frozen=True, kw_only=True):
    """Items to embed: each gets a vector, or several if it is a PDF.

    Attributes:
        combine: `mean`: an item of the input gets the normalised mean of the vectors of its parts. `none`: it gets all
            of them, as a PDF does in any case but `mean`.
        image_queries: Whether images are accepted as queries. They are embedded as they are as passages.
        input_type: None where the request leaves it open.
        prompt: What comes before each text, instead of the prefix of the input type; None for that.
        formats: At least one; every vector is written in each of them.
    """

    task = "embed"
    combine: Combine | None = None
    image_queries: bool = False
    input_type: InputType | None = None
    prompt: Prompt | None = None
    formats: Sequence[VectorFormat] = (VectorFormat(),)


class RankingRequest(InferenceRequest, frozen=True, kw_only=True):
    """Items to rank: each gets a score, of how relevant it is to the query; a PDF that of its best page.

    Attributes:
        query: A text, which is never cut.
    """

    task = "rank"
    query: str


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
