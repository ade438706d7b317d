"""From the `input` field, in all its published forms, to items; an item's kind is decided here and nowhere else."""

from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeAlias

from gateway.api.images import InlineImage, decode_data_url, decode_pdf_url, find_image, is_data_url, is_pdf_url
from gateway.api.request import MESSAGES, ContentBlock, EmbeddingsBody, FilePart, ImagePart, TextPart
from gateway.errors import InvalidItemError, InvalidRequestError, TooLargeError
from gateway.settings import Settings
from gateway.types import (
    DocumentItem,
    EmbeddingsRequest,
    FailedItem,
    FileUrl,
    ImageItem,
    InputType,
    Instruction,
    ItemWithFile,
    Modality,
    Place,
    Prompt,
    PromptName,
    RequestItem,
    TextImageItem,
    TextItem,
    TokensItem,
    VectorFormat,
)

P = ParamSpec("P")

ItemValue: TypeAlias = str | list[int | float] | ContentBlock

INPUT_TYPE_SYNONYMS: dict[str, InputType] = {
    "query": "query",
    "passage": "passage",
    "document": "passage",
    "search_query": "query",
    "search_document": "passage",
}
"""`document` is Voyage AI's name. The last two are Cohere's, which OpenRouter passes on."""


def build_request(body: EmbeddingsBody, settings: Settings) -> EmbeddingsRequest:
    """Return the request that a body makes.

    Args:
        body: As parsed.
        settings: Limits of items, images and image bytes, and the default for `truncate`.

    Raises:
        InvalidRequestError: The input has no published form, no item, or too many; or fields exclude each other.
        InvalidItemError: An item is blank, malformed, or not of its modality.
        TooLargeError: A file above its limit.
    """
    items, places = build_items(body, settings)
    return EmbeddingsRequest(
        model=body.model,
        items=items,
        places=places,
        combine=body.combine,
        input_type=INPUT_TYPE_SYNONYMS[body.input_type] if body.input_type else None,
        prompt=read_prompt(body),
        formats=list_formats(body),
        truncate=body.truncate or settings.truncate,
        user=body.user,
        isolate_errors=body.on_error == "item",
    )


def read_prompt(body: EmbeddingsBody) -> Prompt | None:
    """Return the prompt that a body asks for.

    Raises:
        InvalidRequestError: It asks for two.
    """
    if body.prompt_name is not None and body.instruction is not None:
        raise InvalidRequestError("prompt_name and instruction exclude each other", param="instruction")
    if body.instruction is not None:
        return Instruction(body.instruction)
    return None if body.prompt_name is None else PromptName(body.prompt_name)


def list_formats(body: EmbeddingsBody) -> Sequence[VectorFormat]:
    """Return the formats that a body asks for.

    Raises:
        InvalidRequestError: `outputs` is given beside the fields that it replaces.
    """
    encoding_format = body.encoding_format or "float"
    if body.outputs is None:
        return (VectorFormat(body.dimensions, body.embedding_type or "float", encoding_format),)
    if body.dimensions is not None or body.embedding_type is not None:
        raise InvalidRequestError("outputs excludes dimensions and embedding_type", param="outputs")
    return [
        VectorFormat(each.dimensions, each.embedding_type or "float", each.encoding_format or encoding_format)
        for each in body.outputs
    ]


def build_items(
    body: EmbeddingsBody, settings: Settings
) -> tuple[Sequence[RequestItem | FailedItem], Sequence[Place] | None]:
    """Return the items of a body, and their places if parts are items; raises as `build_request` does."""
    values = list_values(body.input, settings.max_items)
    modalities = list_modalities(body.modality, len(values))
    indices: Sequence[int] = range(len(values))
    places = None
    if body.combine is not None:
        values, modalities, places = split_parts(values, modalities, settings.max_items)
        indices = [place.index for place in places]
    build = or_failed(build_item) if body.on_error == "item" else build_item
    items = [
        build(index, value, modality, settings.max_image_bytes)
        for index, value, modality in zip(indices, values, modalities, strict=True)
    ]
    check_image_count(items, settings.max_images)
    return items, places


def check_image_count(items: Iterable[RequestItem | FailedItem], max_images: int) -> None:
    """Check the number of images and PDFs against this server's limit.

    Raises:
        InvalidRequestError: There are too many.
    """
    if sum(isinstance(item, ItemWithFile) for item in items) > max_images:
        raise InvalidRequestError(f"input must have at most {max_images} images", param="input")


def split_parts(
    values: Sequence[ItemValue], modalities: Sequence[Modality | None], max_items: int
) -> tuple[list[ItemValue], list[Modality | None], list[Place]]:
    """Return every part of every content block as a block of its own, its modality, and its place.

    Raises:
        InvalidRequestError: There are too many parts.
    """
    parts: list[ItemValue] = []
    places: list[Place] = []
    for index, value in enumerate(values):
        if isinstance(value, ContentBlock) and len(value.content) > 1:
            parts.extend(ContentBlock([part]) for part in value.content)
            places.extend(Place(index, part) for part in range(len(value.content)))
        else:
            parts.append(value)
            places.append(Place(index))
    if len(parts) > max_items:
        raise InvalidRequestError(
            f"input must have at most {max_items} items, parts included; got {len(parts)}", param="input"
        )
    # Of a block with parts, `text_image` says that there are several kinds.
    declared = [modalities[place.index] for place in places]
    return parts, [None if modality == "text_image" else modality for modality in declared], places


def list_values(
    value: str | list[str | int | float | list[int | float] | ContentBlock], max_items: int
) -> Sequence[ItemValue]:
    """Return the field's value as a list with one entry per item.

    Raises:
        InvalidRequestError: No published form, no item, or too many.
    """
    if isinstance(value, str):
        return [value]
    kinds = set(map(type, value))
    if value and kinds <= {int, float}:
        return [value]  # type: ignore[list-item]  # all of them are ids
    check_item_count(len(value), max_items)
    if kinds == {list} or kinds <= {str, ContentBlock}:
        return value  # type: ignore[return-value]  # none of them is an id
    raise InvalidRequestError(MESSAGES["input"], param="input")


def check_item_count(count: int, max_items: int) -> None:
    """Check the number of items.

    Raises:
        InvalidRequestError: There are none, or too many.
    """
    if not count:
        raise InvalidRequestError("input must not be empty", param="input")
    if count > max_items:
        raise InvalidRequestError(f"input must have at most {max_items} items; got {count}", param="input")


def list_modalities(value: Modality | list[Modality] | None, count: int) -> Sequence[Modality | None]:
    """Return the modality of each of `count` items; None for those to infer.

    Raises:
        InvalidRequestError: Neither one value nor one per item.
    """
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) == count:
        return value
    if len(value) == 1:
        return value * count
    raise InvalidRequestError(
        f"modality must have one value, or one per input; got {len(value)} for {count} inputs", param="modality"
    )


def build_item(index: int, value: ItemValue, modality: Modality | None, max_bytes: int) -> RequestItem:
    """Return the item that one entry of the list makes.

    Args:
        index: Position in the request.
        value: A string, a list of token ids, or a content block.
        modality: Declared by the request, or None to infer it.
        max_bytes: Limit of one decoded data URL.

    Raises:
        InvalidItemError: Blank, malformed, or not of its modality.
        TooLargeError: A file above its limit.
    """
    match value:
        case str():
            item = read_string(index, value, modality, max_bytes)
        case ContentBlock():
            item = read_block(index, value, max_bytes)
        case _:
            item = read_token_ids(index, value)
    return check_modality(index, item, modality)


def or_failed(build: Callable[P, RequestItem]) -> Callable[P, RequestItem | FailedItem]:
    """Return a function that returns what is wrong with an item in its place."""

    def build_or_fail(*args: P.args, **kwargs: P.kwargs) -> RequestItem | FailedItem:
        try:
            return build(*args, **kwargs)
        except (InvalidItemError, TooLargeError) as error:
            return FailedItem(error)

    return build_or_fail


def read_string(index: int, text: str, modality: Modality | None, max_bytes: int) -> RequestItem:
    """Return the item of a string: a text, an image as a data URL, or both, or a PDF; with modality `text`, a text."""
    if not text or text.isspace():
        raise InvalidItemError(index, "must not be blank or empty")
    if modality == "text":
        return TextItem(text)
    if is_pdf_url(text):
        return DocumentItem(decode_pdf_url(text, index, max_bytes))
    starts_as_image = is_data_url(text)
    if starts_as_image and len(text.split(maxsplit=1)) == 1:
        return ImageItem(decode_data_url(text, index, max_bytes))
    found = find_image(text, index)
    if found is None and starts_as_image:
        found = InlineImage(text, "")  # malformed: decoding reports how
    if found is None:
        return TextItem(text)
    image = decode_data_url(found.url, index, max_bytes)
    return TextImageItem(found.text, image) if found.text else ImageItem(image)


def read_block(index: int, block: ContentBlock, max_bytes: int) -> RequestItem:
    """Return the item of a content block: texts joined by a newline, and at most one image; or a PDF alone."""
    texts = [part.text for part in block.content if isinstance(part, TextPart)]
    files = [part for part in block.content if not isinstance(part, TextPart)]
    if len(files) > 1:
        raise InvalidItemError(index, 'has more than one image; combine "mean" or "none" embeds each part')
    text = "\n".join(texts)
    if not files and (not text or text.isspace()):
        raise InvalidItemError(index, "must not be blank or empty")
    if not files:
        return TextItem(text)
    file = read_file(index, files[0], max_bytes)
    if isinstance(file, ImageItem):
        return TextImageItem(text, file.file) if text.strip() else file
    if texts:
        raise InvalidItemError(index, 'has text beside a PDF; combine "mean" or "none" embeds each part')
    return file


def read_file(index: int, part: ImagePart | FilePart, max_bytes: int) -> ImageItem | DocumentItem:
    """Return the item of a part with a URL; that of an image may be the data URL of a PDF, as some clients send it."""
    url = part.image_url.url if isinstance(part, ImagePart) else part.file.file_data
    is_data = url.lstrip()[:5].lower() == "data:"
    if isinstance(part, ImagePart) and not is_pdf_url(url):
        return ImageItem(decode_data_url(url, index, max_bytes) if is_data else FileUrl(url))
    return DocumentItem(decode_pdf_url(url, index, max_bytes) if is_data else FileUrl(url))


def read_token_ids(index: int, token_ids: list[int | float]) -> TokensItem:
    """Return the item of a list of token ids, of which the parser takes integers and whole floats."""
    if not token_ids:
        raise InvalidItemError(index, "must not be blank or empty")
    has_floats = isinstance(sum(token_ids), float)  # the quickest way to look at every type
    return TokensItem(list(map(int, token_ids)) if has_floats else token_ids)  # type: ignore[arg-type]


def check_modality(index: int, item: RequestItem, modality: Modality | None) -> RequestItem:
    """Return the item if it is of the declared modality.

    Raises:
        InvalidItemError: It is of another.
    """
    if modality is None:
        return item
    match modality, item:
        case (
            ("text", TextItem() | TokensItem())
            | ("image", ImageItem() | DocumentItem())
            | ("text_image", TextImageItem())
        ):
            return item
        case "text_image", ImageItem(image):
            return TextImageItem("", image)
        case "text" | "text_image", DocumentItem():
            raise InvalidItemError(index, f"is a PDF, and its modality is '{modality}'")
        case "text", _:
            raise InvalidItemError(index, "has an image, and its modality is 'text'")
        case "image", TextImageItem():
            raise InvalidItemError(index, "has text beside its image, and its modality is 'image'")
        case _:
            raise InvalidItemError(index, f"has no image, and its modality is '{modality}'")
