"""The body of an embeddings request, field by field; where the embedding NIM publishes a message, in its words."""

from collections.abc import Sequence
from typing import Any, TypeVar

from gateway.dialects.inputs import parse_items
from gateway.embeddings import EmbeddingsRequest
from gateway.errors import InvalidRequestError
from gateway.items import InputType, Modality, Truncate
from gateway.postprocess import EmbeddingType, EncodingFormat
from gateway.quotation import quote
from gateway.settings import Settings

MODALITIES: tuple[Modality, ...] = ("text", "image", "text_image")
EMBEDDING_TYPES: tuple[EmbeddingType, ...] = ("float", "binary", "ubinary", "int8", "uint8")
ENCODING_FORMATS: tuple[EncodingFormat, ...] = ("float", "base64")
TRUNCATIONS: tuple[Truncate, ...] = ("NONE", "START", "END")
INPUT_TYPES: tuple[InputType, ...] = ("query", "passage")
INPUT_TYPE_SYNONYMS: dict[str, InputType] = {"search_query": "query", "search_document": "passage"}
"""Cohere's names, which OpenRouter passes on."""

FIELDS = frozenset(
    {
        "model",
        "input",
        "input_type",
        "modality",
        "dimensions",
        "embedding_type",
        "encoding_format",
        "truncate",
        "user",
    }
)

C = TypeVar("C", bound=str)


def parse_request(body: dict[str, Any], settings: Settings, more_fields: frozenset[str]) -> EmbeddingsRequest:
    """The request that a body makes. A field that is null counts as absent.

    Args:
        body: the JSON object.
        settings: limits of items and images.
        more_fields: that the dialect takes beside `FIELDS`.

    Raises:
        InvalidRequestError: a field is unknown, missing, or has no value it may have.
        TooLargeError: a picture above its limit.
    """
    for name in body:
        if name not in FIELDS and name not in more_fields:
            raise InvalidRequestError(
                f"unknown field {quote(name)}", param=name if quote(name) == f"'{name}'" else None
            )
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("model must be a string" if model else "model is required", param="model")
    if body.get("input") is None:
        raise InvalidRequestError("input is required", param="input")
    user = body.get("user")
    if user is not None and not isinstance(user, str):
        raise InvalidRequestError("user must be a string", param="user")
    embedding_type = parse_embedding_type(body.get("embedding_type"))
    encoding_format = parse_choice(body, "encoding_format", ENCODING_FORMATS) or "float"
    truncate = parse_choice(body, "truncate", TRUNCATIONS) or "NONE"
    return EmbeddingsRequest(
        model=model,
        input_type=parse_input_type(body),
        dimensions=parse_dimensions(body.get("dimensions")),
        embedding_type=embedding_type,
        encoding_format=encoding_format,
        truncate=truncate,
        items=parse_items(body["input"], parse_modality(body), settings),
    )


def parse_choice(body: dict[str, Any], name: str, choices: Sequence[C]) -> C | None:
    """A field that has one of a few values, or None where it is absent.

    Raises:
        InvalidRequestError: another value.
    """
    value = body.get(name)
    if value is None:
        return None
    for choice in choices:
        if value == choice:
            return choice
    raise wrong_choice(name, choices, value)


def wrong_choice(name: str, choices: Sequence[str], value: Any) -> InvalidRequestError:
    """The error of a value that is none of a field's choices."""
    listed = ", ".join(f"'{choice}'" for choice in choices)
    return InvalidRequestError(f"{name} must be one of {listed}; got {quote(value)}", param=name)


def parse_input_type(body: dict[str, Any]) -> InputType | None:
    """The field `input_type`, synonyms included.

    Raises:
        InvalidRequestError: another value.
    """
    value = body.get("input_type")
    if isinstance(value, str) and value in INPUT_TYPE_SYNONYMS:
        return INPUT_TYPE_SYNONYMS[value]
    return parse_choice(body, "input_type", INPUT_TYPES)


def parse_embedding_type(value: Any) -> EmbeddingType:
    """The field `embedding_type`.

    Raises:
        InvalidRequestError: another value.
    """
    if value is None:
        return "float"
    for choice in EMBEDDING_TYPES:
        if value == choice:
            return choice
    raise InvalidRequestError("Input should be 'float', 'binary', 'ubinary', 'int8' or 'uint8'", param="embedding_type")


def parse_dimensions(value: Any) -> int | None:
    """The field `dimensions`, any whole number above 0; the model decides about the rest.

    Raises:
        InvalidRequestError: no whole number, or none above 0.
    """
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise InvalidRequestError("dimensions must be a positive integer", param="dimensions")
    return value


def parse_modality(body: dict[str, Any]) -> Sequence[Modality] | None:
    """The field `modality`: one for all, or a list of them, or None where it is absent.

    Raises:
        InvalidRequestError: a value that is no modality.
    """
    value = body.get("modality")
    if value is None:
        return None
    asked = value if isinstance(value, list) else [value]
    modalities: list[Modality] = []
    for one in asked:
        known = next((modality for modality in MODALITIES if modality == one), None)
        if known is None:
            raise wrong_choice("modality", MODALITIES, one)
        modalities.append(known)
    return modalities
