"""How the preprocessing step's words are read."""

from gateway.engine import ItemFailure
from gateway.engine.failures import read_failures, read_refusal


def test_failed_items_are_found_by_place() -> None:
    entries = ["", "text_too_long: 300 tokens, more than 256", "", "image_invalid: truncated"]
    assert read_failures(entries) == {
        1: ItemFailure("text_too_long", "300 tokens, more than 256"),
        3: ItemFailure("image_invalid", "truncated"),
    }


def test_an_unknown_code_keeps_no_text() -> None:
    assert read_failures(["Traceback: /secret"]) == {0: ItemFailure("", "")}


def test_messages_are_bounded_and_printable() -> None:
    (failure,) = read_failures(["text_invalid: a\x00b" + "c" * 5000]).values()
    assert failure.message.startswith("a bc")
    assert len(failure.message) == 500


def test_a_refused_request_names_each_item_behind_tritons_own_words() -> None:
    details = "in ensemble 'm_text', text_too_long: first\nimage_too_large: second"
    expected = {0: ItemFailure("text_too_long", "first"), 1: ItemFailure("image_too_large", "second")}
    assert read_refusal(details, 2) == expected


def test_a_refusal_of_the_request_itself_is_nobodys_item() -> None:
    assert read_refusal("parameter_invalid: unknown truncate", 1) is None
    assert read_refusal("unexpected inference input 'foo'", 1) is None
    assert read_refusal("text_too_long: only one of two", 2) is None
