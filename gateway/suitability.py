"""Whether a request suits the model it names."""

from collections.abc import Sequence

from gateway.engine import ServedModel
from gateway.errors import InvalidItemError, InvalidRequestError
from gateway.items import InputType, Item, PicturedItem

IMAGE_QUERY = (
    'input_type="query" is not supported with images; the VLM model processes images as passages only. '
    'Use input_type="passage" or omit input_type.'
)
"""The embedding NIM's words."""

SMALLEST_CUT = 128
SMALLEST_CUT_OF_SMALL_MODELS = 32
SMALL_MODEL_DIMENSIONS = 2048
"""Models below this size may be cut further."""


def resolve_input_type(asked: InputType | None, suffix: InputType | None) -> InputType:
    """The input type by field, by the model id's suffix, or `passage`.

    Raises:
        InvalidRequestError: field and suffix contradict one another.
    """
    if asked and suffix and asked != suffix:
        raise InvalidRequestError(
            f"input_type must be '{suffix}' with a model id that ends in '-{suffix}'", param="input_type"
        )
    return asked or suffix or "passage"


def check_dimensions(dimensions: int | None, model: ServedModel) -> None:
    """Compares the size asked for with what the model has.

    Raises:
        InvalidRequestError: too small or too large.
    """
    if dimensions is None or dimensions == model.dimensions:
        return
    small = model.dimensions < SMALL_MODEL_DIMENSIONS
    smallest = SMALLEST_CUT_OF_SMALL_MODELS if small else SMALLEST_CUT
    if not smallest <= dimensions <= model.dimensions:
        allowed = f"from {smallest} to {model.dimensions}" if smallest < model.dimensions else f"{model.dimensions}"
        raise InvalidRequestError(f"dimensions must be {allowed}", param="dimensions")


def check_pictures(items: Sequence[Item], model: ServedModel, input_type: InputType) -> None:
    """Compares the kinds of the items with what the model takes.

    Raises:
        InvalidItemError: a picture for a model of texts.
        InvalidRequestError: a picture as a query.
    """
    for index, item in enumerate(items):
        if isinstance(item, PicturedItem):
            if not model.takes_images:
                raise InvalidItemError(index, "has an image, and the model takes text only")
            if input_type == "query":
                raise InvalidRequestError(IMAGE_QUERY, param="input_type")
