"""The `code: message` words in which the preprocessing step says what is wrong with an item (`docs/contract.md`)."""

import re
from collections.abc import Mapping, Sequence

from gateway.engine.interface import ItemFailure

ITEM_CODES = (
    "text_too_long",
    "text_invalid",
    "token_id_invalid",
    "image_invalid",
    "image_unsupported",
    "image_too_large",
)
REQUEST_CODE = "parameter_invalid"

FAILURE = re.compile(rf"\b({'|'.join((*ITEM_CODES, REQUEST_CODE))}): ([^\n]*)")
MAX_MESSAGE_CHARS = 500


def read_failures(entries: Sequence[str]) -> dict[int, ItemFailure]:
    """The failed items of an answer.

    Args:
        entries: the `errors` output, one entry per item, empty where the item is well.

    Returns:
        Failures by index; an entry without a known code keeps an empty message.
    """
    return {index: read_failure(entry) for index, entry in enumerate(entries) if entry}


def read_refusal(details: str, count: int) -> Mapping[int, ItemFailure] | None:
    """The failures of a request that was refused as a whole.

    Triton may put its own words before the first line, so each line is searched for a code.

    Args:
        details: the text of an INVALID_ARGUMENT answer.
        count: items of the request.

    Returns:
        One failure per item where every item failed on its own; None where the request's form was refused, which is
        a fault of ours.
    """
    failures = [ItemFailure(*found) for found in FAILURE.findall(details)]
    if len(failures) != count or any(failure.code == REQUEST_CODE for failure in failures):
        return None
    return {index: shorten(failure) for index, failure in enumerate(failures)}


def read_failure(entry: str) -> ItemFailure:
    """One entry of an `errors` output."""
    found = FAILURE.search(entry)
    return shorten(ItemFailure(*found.groups())) if found else ItemFailure("", "")


def shorten(failure: ItemFailure) -> ItemFailure:
    """The failure with a message of bounded length and printable characters."""
    message = "".join(char if char.isprintable() else " " for char in failure.message[:MAX_MESSAGE_CHARS])
    return ItemFailure(failure.code, message)
