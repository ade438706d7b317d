"""Bodies and answers as the OpenAPI document describes them. Nothing is parsed by them; tests keep them true."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.items import Modality, Truncate
from gateway.postprocess import EmbeddingType, EncodingFormat

Text = Annotated[str, Field(min_length=1, pattern=r"\S", description="A text, or an image as or within a data URL.")]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1, description="Token ids.")]


class Closed(BaseModel):
    """A body whose other fields are refused."""

    model_config = ConfigDict(extra="forbid")


AT_MOST_ONE_IMAGE: dict[str, Any] = {
    "contains": {"properties": {"type": {"const": "image_url"}}},
    "minContains": 0,
    "maxContains": 1,
}


class TextPart(Closed):
    """A text in a content block."""

    type: Literal["text"]
    text: str = Field(description="The text.")


class ImageUrl(Closed):
    """Where an image lies."""

    url: str = Field(description="A data URL with a PNG, JPEG, WebP or GIF, or an http(s) URL where they are fetched.")
    detail: Any = Field(default=None, description="Accepted and ignored.")


class ImagePart(Closed):
    """An image in a content block."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ContentBlock(Closed):
    """One item made of parts: texts are joined by newlines, at most one image."""

    content: list[Annotated[TextPart | ImagePart, Field(discriminator="type")]] = Field(
        min_length=1, json_schema_extra=AT_MOST_ONE_IMAGE
    )


class EmbeddingsBody(Closed):
    """What to embed, and how to answer."""

    model: str = Field(
        min_length=1,
        description="Id of a served model; the suffixes `-query` and `-passage` set `input_type`, `:free` is ignored.",
    )
    input: (
        Text
        | Annotated[list[Text | ContentBlock], Field(min_length=1, max_length=2048)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=2048)]
    ) = Field(
        description="A text; texts and content blocks, in any mixture; token ids of one item; token ids of several."
    )
    input_type: Literal["query", "passage", "search_query", "search_document"] | None = Field(
        default=None, description="Whether texts are queries or documents; `passage` if absent. Images are passages."
    )
    modality: Modality | Annotated[list[Modality], Field(min_length=1)] | None = Field(
        default=None, description="Of all items, or one for each; inferred if absent."
    )
    dimensions: int | None = Field(
        default=None,
        ge=32,
        description="Size of the vectors: cut, then normalised again. From 128 (small models: 32) to the model's size.",
    )
    embedding_type: EmbeddingType | None = Field(
        default=None,
        description="Type of the values, `float` if absent. `int8` is trunc(127·x), `uint8` that plus 128, "
        "`ubinary` packed signs, `binary` those minus 128.",
    )
    encoding_format: EncodingFormat | None = Field(
        default=None, description="Numbers (`float`), or base64 of the type's little-endian bytes."
    )
    truncate: Truncate | None = Field(
        default=None, description="Which end of a text above the model's limit goes; `NONE`, or absent, refuses it."
    )
    user: str | None = Field(default=None, description="Any string; logged as a hash only.")


class ProviderRules(BaseModel):
    """OpenRouter's provider preferences; the rest has no effect."""

    only: list[str] | None = Field(default=None, description="Providers that may answer; 404 without this one.")
    order: list[str] | None = Field(
        default=None, description="Providers to try; 404 without this one, unless `allow_fallbacks` is true."
    )
    allow_fallbacks: Any = Field(default=None, description="Whether providers outside `order` may answer.")


class OpenRouterBody(EmbeddingsBody):
    """What to embed, and how to answer, with OpenRouter's own fields."""

    provider: ProviderRules | None = None
    temperature: Any = Field(default=None, description="Accepted and ignored.")
    top_p: Any = Field(default=None, description="Accepted and ignored.")
    seed: Any = Field(default=None, description="Accepted and ignored.")
    max_tokens: Any = Field(default=None, description="Accepted and ignored.")
    response_format: Any = Field(default=None, description="Accepted and ignored.")
    session_id: Any = Field(default=None, description="Accepted and ignored.")
    trace: Any = Field(default=None, description="Accepted and ignored.")


class Embedding(BaseModel):
    """The vector of one item."""

    object: Literal["embedding"]
    index: int = Field(ge=0, description="Place of the item in the request.")
    embedding: list[float] | str = Field(description="Numbers, or base64.")


class TokenDetails(BaseModel):
    """Tokens by what they stand for."""

    text_tokens: int = Field(ge=0)
    image_tokens: int = Field(ge=0)


class Usage(BaseModel):
    """Tokens that reached the model; special, prefix and image tokens included."""

    prompt_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)
    prompt_tokens_details: TokenDetails


class EmbeddingsAnswer(BaseModel):
    """The vectors, in the order of the input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str = Field(description="Public id of the model that answered.")
    usage: Usage


class OpenRouterUsage(Usage):
    """Tokens and their price."""

    cost: float = Field(description="Always 0.")


class OpenRouterAnswer(EmbeddingsAnswer):
    """The vectors, in the order of the input, with OpenRouter's own fields."""

    id: str = Field(description="Of the answer; ends with the request's id.")
    usage: OpenRouterUsage


class Model(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When it was exported, in Unix seconds.")
    owned_by: str


class ModelList(BaseModel):
    """The served models."""

    object: Literal["list"]
    data: list[Model]


class OpenRouterModelList(BaseModel):
    """The served models, in OpenRouter's words."""

    data: list[dict[str, Any]]
    total_count: int
    links: dict[str, str | None] = Field(description="`next`: path of the next page, or null.")


class ModelCount(BaseModel):
    """A number of models."""

    count: int


class OpenRouterModelCount(BaseModel):
    """How many models are served, in OpenRouter's words."""

    data: ModelCount


class Live(BaseModel):
    """That the process answers."""

    object: Literal["health.response"]
    message: Literal["live"]
    live: Literal[True]


class Ready(BaseModel):
    """Whether every model has just answered a real inference."""

    object: Literal["health.response"]
    message: Literal["ready", "not ready"]
    ready: bool


class Version(BaseModel):
    """Versions of the server."""

    release: str
    api: str


class ErrorDetails(BaseModel):
    """The error as OpenAI's and OpenRouter's clients read it."""

    message: str
    type: str
    param: str | None = Field(description="The field at fault, such as `input[3]`.")
    code: int = Field(description="The HTTP status.")


class ErrorAnswer(BaseModel):
    """Every error of every route; the outer fields are the embedding NIM's."""

    object: Literal["error"]
    message: str
    type: str
    error: ErrorDetails
