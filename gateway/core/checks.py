"""Checks a request against the model that it names."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from gateway.core.image_size import ImageSize
from gateway.engine import ItemFailure, ServedModel
from gateway.errors import (
    EngineFaultError,
    FingerprintError,
    GatewayError,
    InvalidItemError,
    InvalidRequestError,
    TooLargeError,
)
from gateway.types import (
    DocumentItem,
    InputType,
    Instruction,
    ItemWithFile,
    Place,
    Prompt,
    PromptName,
    RequestItem,
    TextImageItem,
    TextItem,
    TokenLimit,
    TokensItem,
    Truncate,
)

IMAGE_QUERY = (
    'input_type="query" is not supported with images; the VLM model processes images as passages only. '
    'Use input_type="passage" or omit input_type.'
)
"""The embedding NIM's message."""

TEXT_WITH_IMAGE = "has an image and a text, and the model embeds each by itself, in one space; send them as two items"

MIN_DIMENSIONS = 128
MIN_DIMENSIONS_OF_SMALL_MODELS = 32
SMALL_MODEL_DIMENSIONS = 2048
"""Models with fewer dimensions may be cut further."""

INPUT_TYPE_OF_PROMPT: Mapping[str, InputType] = {"query": "query", "passage": "passage", "document": "passage"}
"""The prompts that every model has; Sentence Transformers calls passages documents."""

MAX_NAMES_SHOWN = 20

FINGERPRINT_HEADER = "x-embedding-fingerprint"

E = TypeVar("E", bound=GatewayError)


def resolve_input_type(field: InputType | None, suffix: InputType | None) -> InputType | None:
    """Return the input type set by the request's field or by the model id's suffix, or None.

    Raises:
        InvalidRequestError: Field and suffix contradict each other.
    """
    if field and suffix and field != suffix:
        raise InvalidRequestError(
            f"input_type must be '{suffix}' with a model id that ends in '-{suffix}'", param="input_type"
        )
    return field or suffix


def resolve_prompt(
    prompt: Prompt | None, input_type: InputType | None, model: ServedModel
) -> tuple[InputType, str | None]:
    """Return the input type, and what comes before each text if that is not the model's prefix of the input type.

    Args:
        prompt: What the request asks for.
        input_type: Set by the request's field or by the model id's suffix, or None.
        model: That the request names.

    Raises:
        InvalidRequestError: The model has no such prompt, or follows no instructions; or the input type is set as well.
    """
    match prompt:
        case Instruction(instruction):
            return "query", fill_template(instruction, input_type, model)
        case PromptName(name, is_required):
            if input_type is not None:
                raise InvalidRequestError("prompt_name and input_type exclude each other", param="prompt_name")
            return find_prompt(name, is_required, model)
    return input_type or "passage", None


def fill_template(instruction: str, input_type: InputType | None, model: ServedModel) -> str:
    """Return the prompt with an instruction; raises as `resolve_prompt` does."""
    template = model.manifest.get("instruction_template")
    if not template:
        raise InvalidRequestError("instruction is not supported by this model", param="instruction")
    if input_type == "passage":
        raise InvalidRequestError("instruction is for queries, not for passages", param="instruction")
    check_takes_prompts("instruction", model)
    return str(template).replace("{instruction}", instruction)


def find_prompt(name: str, is_required: bool, model: ServedModel) -> tuple[InputType, str | None]:
    """Return what the name of a prompt stands for, in the model's own spelling; raises as `resolve_prompt` does."""
    prompts: Mapping[str, str] = model.manifest.get("prompts") or {}
    if name in INPUT_TYPE_OF_PROMPT:
        return INPUT_TYPE_OF_PROMPT[name], None
    known = name if name in prompts else next((each for each in prompts if each.lower() == name.lower()), None)
    if known is not None:
        check_takes_prompts("prompt_name", model)
        return "passage", prompts[known]
    if not is_required:
        return "passage", None
    names = ", ".join(f"'{each}'" for each in sorted({*INPUT_TYPE_OF_PROMPT, *prompts})[:MAX_NAMES_SHOWN])
    raise InvalidRequestError(f"prompt_name must be one of the model's: {names}", param="prompt_name")


def check_takes_prompts(field: str, model: ServedModel) -> None:
    """Refuse a prompt for a model that an earlier version exported.

    Raises:
        InvalidRequestError: It is one.
    """
    if not model.takes_prompts:
        raise InvalidRequestError(f"{field} is not supported by this model: it has to be exported again", param=field)


def check_promptable(index: int, item: RequestItem) -> None:
    """Check that an item may have a prompt.

    Raises:
        InvalidItemError: It is an image or a PDF.
    """
    if isinstance(item, ItemWithFile):
        raise InvalidItemError(index, "is an image or a PDF, which takes neither prompt_name nor instruction")


def check_dimensions(dimensions: int | None, model: ServedModel) -> None:
    """Check that the model's vectors can be cut to the requested size.

    Raises:
        InvalidRequestError: Too small or too large.
    """
    if dimensions is None or dimensions == model.dimensions:
        return
    smallest = MIN_DIMENSIONS_OF_SMALL_MODELS if model.dimensions < SMALL_MODEL_DIMENSIONS else MIN_DIMENSIONS
    if not smallest <= dimensions <= model.dimensions:
        allowed = f"from {smallest} to {model.dimensions}" if smallest < model.dimensions else f"{model.dimensions}"
        raise InvalidRequestError(f"dimensions must be {allowed}", param="dimensions")


def check_token_limit(limit: TokenLimit | None, model: ServedModel) -> None:
    """Check that a client's limit leaves the model's own in force: the engine truncates at no other.

    Raises:
        InvalidRequestError: The limit is lower.
    """
    if limit is not None and limit.max_tokens < model.max_tokens:
        raise InvalidRequestError(
            f"{limit.field} must be at least {model.max_tokens}, the model's limit: lower limits are not supported",
            param=limit.field,
        )


def check_fingerprint(fingerprint: str | None, model: ServedModel) -> None:
    """Check that the model's embedding space is the one that the client expects.

    Raises:
        FingerprintError: It is another.
    """
    if fingerprint is not None and fingerprint != model.fingerprint:
        raise FingerprintError(
            f"the model's embedding space has another fingerprint than {FINGERPRINT_HEADER} asks for; its vectors "
            "cannot be compared with those of the expected one",
            param=FINGERPRINT_HEADER,
        )


def check_modality(
    index: int, item: RequestItem, model: ServedModel, input_type: InputType, image_queries: bool
) -> None:
    """Check that the model takes the item's kind.

    Args:
        index: Position of the item, for the errors.
        item: Of the request.
        model: That the request names.
        input_type: Of the request.
        image_queries: Whether images are accepted as queries.

    Raises:
        InvalidItemError: An image or a PDF, or a text beside an image, for a model that does not take it.
        InvalidRequestError: An image as a query.
    """
    if not isinstance(item, ItemWithFile):
        return
    if not model.takes_images:
        raise InvalidItemError(index, "has an image, and the model takes text only")
    if isinstance(item, TextImageItem) and not model.takes_text_with_images:
        raise InvalidItemError(index, TEXT_WITH_IMAGE)
    if isinstance(item, DocumentItem) and not model.takes_pdfs:
        raise InvalidItemError(index, "is a PDF, which the model takes only once it is exported again")
    if input_type == "query" and not image_queries:
        raise InvalidRequestError(IMAGE_QUERY, param="input_type")


def check_query(query: str, model: ServedModel) -> None:
    """Check the query of a ranking, which is never cut.

    Raises:
        InvalidRequestError: It is blank, or longer than the engine reads.
    """
    if not query or query.isspace():
        raise InvalidRequestError("query must not be blank or empty", param="query")
    if len(query) > model.max_read_chars:
        raise InvalidRequestError(
            f"query: {len(query)} characters exceed the limit of {model.max_read_chars} for {model.max_tokens} tokens",
            param="query",
        )


def check_length(index: int, item: RequestItem, model: ServedModel, truncate: Truncate) -> RequestItem:
    """Return the item without the characters of a very long text that the engine would not read.

    Args:
        index: Position of the item, for the errors.
        item: Of the request.
        model: That the request names.
        truncate: Which end of the text is cut.

    Raises:
        InvalidItemError: The item has too many token ids.
        InvalidRequestError: The text is too long, and must not be cut.
    """
    limit = model.max_read_chars
    match item:
        case TextItem(text) | TextImageItem(text, _) if len(text) > limit:
            if truncate == "NONE":
                reason = f"{len(text)} characters exceed the limit of {limit} for {model.max_tokens} tokens"
                raise error_of_item(InvalidRequestError, index, f"{reason}; truncate END or START cuts them")
            # One character more than the limit: the engine shall see that there are more.
            return replace(item, text=text[: limit + 1] if truncate == "END" else text[-limit - 1 :])
        case TokensItem(token_ids) if len(token_ids) > limit:
            raise InvalidItemError(index, f"has {len(token_ids)} token ids; the limit is {limit}")
    return item


def check_file_size(index: int, item: RequestItem, model: ServedModel) -> None:
    """Check a file against the model's own limit, which may be below the gateway's.

    Raises:
        TooLargeError: The file is above it.
    """
    if not isinstance(item, ItemWithFile):
        return
    limit = model.max_image_bytes
    if isinstance(item.file, bytes) and len(item.file) > limit:
        kind = "PDF" if isinstance(item, DocumentItem) else "image"
        raise error_of_item(TooLargeError, index, f"the {kind} is above the limit of {limit} bytes")


def check_image_pixels(index: int, size: ImageSize, max_pixels: int) -> None:
    """Check the pixels of an image against this server's limit.

    Raises:
        TooLargeError: There are too many.
    """
    if size.pixels > max_pixels:
        raise error_of_item(
            TooLargeError,
            index,
            f"the image has {size.width}x{size.height} pixels, more than the limit of {max_pixels}",
        )


def check_request_pixels(pixels: int, max_pixels: int) -> None:
    """Check the pixels of all images of a request against this server's limit.

    Raises:
        TooLargeError: There are too many.
    """
    if pixels > max_pixels:
        raise TooLargeError(
            f"the images of a request may have {max_pixels} pixels in all; these have {pixels}", param="input"
        )


def error_of_item(kind: type[E], index: int, message: str) -> E:
    """Return an error about one item."""
    return kind(f"input[{index}]: {message}", param=f"input[{index}]")


def check_page_count(index: int, pages: int, max_pages: int) -> None:
    """Check the number of a PDF's pages against this server's limit.

    Raises:
        InvalidItemError: There are too many, or this server takes no PDFs.
    """
    if not max_pages:
        raise InvalidItemError(index, "is a PDF, which this server does not accept")
    if pages > max_pages:
        raise InvalidItemError(index, f"is a PDF of {pages} pages, more than this server's limit of {max_pages}")


def describe_failure(place: Place, failure: ItemFailure) -> GatewayError:
    """Return the error of an item, or of a part or page of it, that the engine could not embed."""
    message = failure.message if place.page is None else f"page {place.page}: {failure.message}"
    match failure.code:
        case "image_too_large":
            return error_of_item(TooLargeError, place.index, message)
        case "":
            return EngineFaultError(f"item {place.index} failed without a known code: {failure.message!r}")
        case _:
            return error_of_item(InvalidRequestError, place.index, message)
