"""What clients of vLLM, Voyage AI and Jina AI send to `/v1/embeddings` beyond the fields of OpenAI and the NIM.

A body without such fields is never parsed as this type.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from gateway.api.inputs import INPUT_TYPE_SYNONYMS, build_request
from gateway.api.request import ContentBlock, ContentPart, EmbeddingsBody, Input, TextPart
from gateway.errors import InvalidRequestError
from gateway.settings import Settings
from gateway.types import EmbeddingsRequest, EmbeddingType, InputType, TokenLimit, VectorFormat

Role = Literal["user", "query", "document"]

INPUT_TYPE_OF_ROLE: Mapping[Role, InputType | None] = {"user": None, "query": "query", "document": "passage"}
"""As in the chat template that vLLM ships for NVIDIA's llama-nemotron-embed-vl."""

INPUT_TYPE_OF_TASK: Mapping[str, InputType] = {"retrieval.query": "query", "retrieval.passage": "passage"}

NEUTRAL_VALUES: Mapping[str, Any] = {
    "add_special_tokens": True,
    "add_generation_prompt": False,
    "continue_final_message": False,
    "priority": 0,
    "stream": False,
    "normalize": True,
    "use_activation": True,
    "normalized": True,
    "late_chunking": False,
}
"""The only value of a field that asks for what this server does anyway; any other is refused."""


def neutral(name: str, meaning: str) -> Meta:
    """Return the description of a field of which one value is accepted."""
    return Meta(description=meaning, extra_json_schema={"enum": [NEUTRAL_VALUES[name], None]})


class Message(Struct, forbid_unknown_fields=True):
    """The item, as a chat message."""

    role: Annotated[Role, Meta(description="`query` and `document` set `input_type`.")]
    content: Annotated[
        Annotated[str, Meta(extra_json_schema={"minLength": 1})] | Annotated[list[ContentPart], Meta(min_length=1)],
        Meta(description="A text, or the parts of a content block."),
    ]


class CompatibleBody(EmbeddingsBody, kw_only=True):
    """What to embed, and how to respond, with the fields of vLLM, Voyage AI and Jina AI."""

    input: Input | UnsetType = UNSET  # type: ignore[assignment]  # either this or messages
    messages: Annotated[
        Annotated[list[Message], Meta(min_length=1, max_length=1)] | UnsetType,
        Meta(description="One item, as vLLM's clients send it, in place of `input`."),
    ] = UNSET

    truncate_prompt_tokens: Annotated[
        Annotated[int, Meta(ge=-1)] | None,
        Meta(description="vLLM: -1 truncates at the model's limit; a lower limit is refused."),
    ] = None
    truncation_side: Annotated[
        Literal["left", "right"] | None, Meta(description="vLLM: with `truncate_prompt_tokens`; `right` if absent.")
    ] = None
    embed_dtype: Annotated[
        Literal["float32", "float16"] | None, Meta(description="vLLM: type of what base64 encodes.")
    ] = None
    endianness: Annotated[
        Literal["native", "little", "big"] | None,
        Meta(description="vLLM: byte order of what base64 encodes; `native` is little."),
    ] = None
    add_special_tokens: Annotated[bool | None, Meta(description="vLLM: true, or with `messages` either.")] = None
    add_generation_prompt: Annotated[bool | None, neutral("add_generation_prompt", "vLLM: false.")] = None
    continue_final_message: Annotated[bool | None, neutral("continue_final_message", "vLLM: false.")] = None
    priority: Annotated[int | None, neutral("priority", "vLLM: 0.")] = None
    stream: Annotated[bool | None, neutral("stream", "Sent by chat clients: false.")] = None
    normalize: Annotated[bool | None, neutral("normalize", "Earlier versions of vLLM: true.")] = None
    use_activation: Annotated[bool | None, neutral("use_activation", "vLLM: true.")] = None

    truncation: Annotated[bool | None, Meta(description="Voyage AI: whether the end of a long text is cut.")] = None
    output_dimension: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Voyage AI: same as `dimensions`.")
    ] = None
    output_dtype: Annotated[EmbeddingType | None, Meta(description="Voyage AI: same as `embedding_type`.")] = None

    task: Annotated[
        Literal["retrieval.query", "retrieval.passage"] | None, Meta(description="Jina AI: sets `input_type`.")
    ] = None
    normalized: Annotated[bool | None, neutral("normalized", "Jina AI: true.")] = None
    late_chunking: Annotated[bool | None, neutral("late_chunking", "Jina AI: false.")] = None

    field_messages: ClassVar[Mapping[str, str]] = {
        "messages": 'messages must be one {"role": ..., "content": ...}: the role user, query or document, the content '
        "a string or an array of text and image_url parts",
        "truncate_prompt_tokens": "truncate_prompt_tokens must be -1, which truncates at the model's limit",
        "truncation_side": "truncation_side must be 'left' or 'right'",
        "embed_dtype": "embed_dtype must be 'float32' or 'float16'",
        "endianness": "endianness must be 'native', 'little' or 'big'",
        "truncation": "truncation must be a boolean",
        "output_dimension": "output_dimension must be a positive integer",
        "output_dtype": "output_dtype must be 'float', 'int8', 'uint8', 'binary' or 'ubinary'",
        "task": "task must be 'retrieval.query' or 'retrieval.passage'",
    } | {name: f"{name} must be {str(value).lower()}" for name, value in NEUTRAL_VALUES.items()}


def build_compatible_request(body: EmbeddingsBody, settings: Settings) -> EmbeddingsRequest:
    """Return the request that a body makes, of either type; raises as `build_request` does."""
    if not isinstance(body, CompatibleBody):
        return build_request(body, settings)
    check_neutral_values(body)
    resolved = replace(
        body,
        input=read_input(body),
        input_type=read_input_type(body),
        dimensions=choose({"dimensions": body.dimensions, "output_dimension": body.output_dimension}),
        embedding_type=choose({"embedding_type": body.embedding_type, "output_dtype": body.output_dtype}),
        truncate=read_truncate(body),
    )
    request = build_request(resolved, settings)
    formats = [adapt_format(each, body) for each in request.formats]
    limit = body.truncate_prompt_tokens
    token_limit = TokenLimit("truncate_prompt_tokens", limit) if limit is not None and limit >= 0 else None
    return replace(request, formats=formats, token_limit=token_limit)


def adapt_format(vector_format: VectorFormat, body: CompatibleBody) -> VectorFormat:
    """Return a format with the type and the byte order that vLLM's fields set.

    Raises:
        InvalidRequestError: The type is set twice.
    """
    if body.embed_dtype == "float16" and vector_format.encoding_format == "base64":
        if vector_format.component_type != "float":
            raise InvalidRequestError("embed_dtype must be absent with an embedding_type", param="embed_dtype")
        vector_format = replace(vector_format, component_type="float16")
    return replace(vector_format, endianness="big") if body.endianness == "big" else vector_format


def check_neutral_values(body: CompatibleBody) -> None:
    """Refuse every field that asks for something else than what this server does.

    Raises:
        InvalidRequestError: The field is named.
    """
    for name, neutral_value in NEUTRAL_VALUES.items():
        value = getattr(body, name)
        if value in (None, neutral_value) or (name == "add_special_tokens" and body.messages):
            continue
        raise InvalidRequestError(body.field_messages[name], param=name)


def choose(values: Mapping[str, Any]) -> Any:
    """Return the value of fields that mean the same, or None.

    Args:
        values: By field; None if the request does not have it.

    Raises:
        InvalidRequestError: They contradict each other.
    """
    given = {name: value for name, value in values.items() if value is not None}
    if len(set(given.values())) > 1:
        first, second = list(given)[:2]
        raise InvalidRequestError(f"{first} and {second} contradict each other", param=second)
    return next(iter(given.values()), None)


def read_input(body: CompatibleBody) -> Any:
    """Return the `input` field, or the content block that `messages` make.

    Raises:
        InvalidRequestError: The body has both, or neither.
    """
    if not isinstance(body.input, UnsetType):
        if body.messages is not UNSET:
            raise InvalidRequestError("input and messages exclude each other", param="messages")
        return body.input
    if isinstance(body.messages, UnsetType):
        raise InvalidRequestError("input is required", param="input")
    content = body.messages[0].content
    return [ContentBlock([TextPart(content)] if isinstance(content, str) else content)]


def read_input_type(body: CompatibleBody) -> Any:
    """Return the input type set by its own field, by the role of the message or by the task, or None.

    Raises:
        InvalidRequestError: They contradict each other.
    """
    role = None if isinstance(body.messages, UnsetType) else INPUT_TYPE_OF_ROLE[body.messages[0].role]
    task = INPUT_TYPE_OF_TASK[body.task] if body.task else None
    field = INPUT_TYPE_SYNONYMS[body.input_type] if body.input_type else None
    return choose({"input_type": field, "messages[0].role": role, "task": task})


def read_truncate(body: CompatibleBody) -> Any:
    """Return which end of a long text is cut, or None if the body does not say.

    Raises:
        InvalidRequestError: Its fields contradict each other.
    """
    voyage = None if body.truncation is None else ("END" if body.truncation else "NONE")
    vllm = None
    if body.truncate_prompt_tokens is not None:
        vllm = "START" if body.truncation_side == "left" else "END"
    return choose({"truncate": body.truncate, "truncation": voyage, "truncate_prompt_tokens": vllm})
