"""The `input` field, in all its published forms, as items."""

from collections.abc import Sequence
from typing import Any

from gateway.data_urls import EmbeddedImage, decode_data_url, find_image, is_data_url
from gateway.errors import InvalidItemError, InvalidRequestError
from gateway.items import ImageItem, ImageUrl, Item, Modality, PicturedItem, TextImageItem, TextItem, TokensItem
from gateway.quotation import quote
from gateway.settings import Settings

MAX_TOKEN_ID = 2**31 - 1
"""Above any vocabulary; which ids a model knows is for the engine to say."""

INPUT_FORMS = (
    "input must be a string, an array of strings or content blocks, an array of token ids, or an array of such arrays"
)


def parse_items(value: Any, modalities: Sequence[Modality] | None, settings: Settings) -> list[Item]:
    """Every item of a request.

    Args:
        value: of the field, as parsed from JSON.
        modalities: one for all items or one for each; None to infer them.
        settings: limits of items, images and image bytes.

    Raises:
        InvalidRequestError: no published form, no item, or too many.
        InvalidItemError: an item is blank, malformed, or not of its modality.
        TooLargeError: a picture above its limit.
    """
    values = list_values(value, settings.max_items)
    per_item: Sequence[Modality | None] = [None] * len(values)
    if modalities is not None:
        if len(modalities) not in (1, len(values)):
            raise InvalidRequestError(
                f"modality must have one value, or one per input; got {len(modalities)} for {len(values)} inputs",
                param="modality",
            )
        per_item = list(modalities) * len(values) if len(modalities) == 1 else modalities
    reader = ItemReader(settings.max_image_bytes)
    items = [reader.read(index, one, per_item[index]) for index, one in enumerate(values)]
    pictures = sum(isinstance(item, PicturedItem) for item in items)
    if pictures > settings.max_images:
        raise InvalidRequestError(f"input must have at most {settings.max_images} images", param="input")
    return items


def list_values(value: Any, max_items: int) -> list[Any]:
    """The field's value as a list with one entry per item: a string, a block, or a list of token ids.

    Raises:
        InvalidRequestError: no published form, no item, or too many.
    """
    match value:
        case str():
            return [value]
        case []:
            raise InvalidRequestError("input must not be empty", param="input")
        case list():
            kinds = set(map(type, value))
            if kinds == {int}:
                return [value]
            if len(value) > max_items:
                raise InvalidRequestError(f"input must have at most {max_items} items; got {len(value)}", param="input")
            if kinds <= {str, dict} or kinds == {list}:
                return value
    raise InvalidRequestError(INPUT_FORMS, param="input")


class ItemReader:
    """Reads one entry of the list at a time; decides what kind of item it is, here and nowhere else."""

    def __init__(self, max_image_bytes: int) -> None:
        """Keeps the limit.

        Args:
            max_image_bytes: of one decoded data URL.
        """
        self._max_image_bytes = max_image_bytes

    def read(self, index: int, value: str | list[Any] | dict[str, Any], modality: Modality | None) -> Item:
        """The item of an entry.

        Args:
            index: its place in the request.
            value: a string, a list of token ids, or a content block.
            modality: what the request says it is, or None to infer it.

        Raises:
            InvalidItemError: blank, malformed, or not of its modality.
            TooLargeError: a picture above its limit.
        """
        match value:
            case str():
                return self._read_string(index, value, modality)
            case list():
                return read_token_ids(index, value, modality)
            case dict():
                return self._read_block(index, value, modality)

    def _read_string(self, index: int, text: str, modality: Modality | None) -> Item:
        if not text or text.isspace():
            raise InvalidItemError(index, "must not be blank or empty")
        if modality == "text":
            return TextItem(text)
        starts_as_image = is_data_url(text)
        if starts_as_image and len(text.split(maxsplit=1)) == 1:
            return self._check_modality(index, ImageItem(self._decode(index, text)), modality)
        found = find_image(text, index)
        if found is None and starts_as_image:
            found = EmbeddedImage(text, "")  # malformed: decoding says how
        if found is None:
            return self._check_modality(index, TextItem(text), modality)
        image = self._decode(index, found.url)
        item = TextImageItem(found.text, image) if found.text else ImageItem(image)
        return self._check_modality(index, item, modality)

    def _read_block(self, index: int, block: dict[str, Any], modality: Modality | None) -> Item:
        """An item given as `{"content": [...]}`, texts joined by a newline, at most one picture."""
        parts = block.get("content")
        if len(block) != 1 or not isinstance(parts, list) or not parts:
            raise InvalidItemError(index, 'must be a string or {"content": [...]} with at least one part')
        texts: list[str] = []
        images: list[bytes | ImageUrl] = []
        for part in parts:
            match part:
                case {"type": "text", "text": str(text), **rest} if not rest:
                    texts.append(text)
                case {"type": "image_url", "image_url": {"url": str(url), **options}, **rest} if not rest:
                    if options.keys() - {"detail"}:
                        raise InvalidItemError(index, 'has an image_url with fields other than "url" and "detail"')
                    images.append(self._read_url(index, url))
                case _:
                    raise InvalidItemError(
                        index, 'has a content part that is neither {"type":"text"} nor {"type":"image_url"}'
                    )
            if len(images) > 1:
                raise InvalidItemError(index, "has more than one image")
        text = "\n".join(texts)
        if not images and (not text or text.isspace()):
            raise InvalidItemError(index, "must not be blank or empty")
        if not images:
            return self._check_modality(index, TextItem(text), modality)
        item = TextImageItem(text, images[0]) if text.strip() else ImageItem(images[0])
        return self._check_modality(index, item, modality)

    def _read_url(self, index: int, url: str) -> bytes | ImageUrl:
        return self._decode(index, url) if url.lstrip()[:5].lower() == "data:" else ImageUrl(url)

    def _decode(self, index: int, url: str) -> bytes:
        return decode_data_url(url, index, self._max_image_bytes)

    @staticmethod
    def _check_modality(index: int, item: Item, modality: Modality | None) -> Item:
        """The item, if it is what the request says it is.

        Raises:
            InvalidItemError: it is something else.
        """
        match modality, item:
            case (None, _) | ("text", TextItem()) | ("image", ImageItem()) | ("text_image", TextImageItem()):
                return item
            case "text_image", ImageItem(image):
                return TextImageItem("", image)
            case "text", _:
                raise InvalidItemError(index, "has an image, and its modality is 'text'")
            case "image", TextImageItem():
                raise InvalidItemError(index, "has text beside its image, and its modality is 'image'")
            case _:
                raise InvalidItemError(index, f"has no image, and its modality is {quote(modality)}")


def read_token_ids(index: int, token_ids: list[Any], modality: Modality | None) -> TokensItem:
    """An item given as token ids.

    Raises:
        InvalidItemError: empty, not whole numbers, out of any vocabulary, or not called a text.
    """
    if not token_ids:
        raise InvalidItemError(index, "must not be blank or empty")
    if set(map(type, token_ids)) != {int}:
        raise InvalidItemError(index, "must hold token ids only, as integers")
    if min(token_ids) < 0 or max(token_ids) > MAX_TOKEN_ID:
        raise InvalidItemError(index, "has a token id outside the vocabulary")
    if modality not in (None, "text"):
        raise InvalidItemError(index, f"has no image, and its modality is {quote(modality)}")
    return TokensItem(token_ids)
