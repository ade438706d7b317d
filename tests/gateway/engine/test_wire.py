"""How failures that the preprocessing step reports are read."""

import grpc
import numpy as np

from gateway.engine import ItemFailure
from gateway.engine.wire import all_failed, read_failures, read_refusal


def test_failed_items_are_found_by_index() -> None:
    entries = ["", "text_too_long: 300 tokens, more than 256", "", "image_invalid: truncated"]
    assert read_failures(entries) == {
        1: ItemFailure("text_too_long", "300 tokens, more than 256"),
        3: ItemFailure("image_invalid", "truncated"),
    }


def test_an_entry_without_a_known_code_has_none() -> None:
    assert read_failures(["Traceback: /secret"]) == {0: ItemFailure("", "Traceback: /secret")}


def test_messages_are_bounded_and_printable() -> None:
    (failure,) = read_failures(["text_invalid: a\x00b" + "c" * 5000]).values()
    assert failure.message.startswith("a bc")
    assert len(failure.message) == 500


def refusal(details: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def test_a_refused_request_names_each_item_behind_tritons_own_words() -> None:
    error = refusal("in ensemble 'm_text', text_too_long: first\nimage_too_large: second")
    failures = {0: ItemFailure("text_too_long", "first"), 1: ItemFailure("image_too_large", "second")}
    assert read_refusal(error, 2) == failures
    refused = all_failed(failures, dimensions=8)
    assert refused.failures == failures
    assert refused.embeddings.shape == (2, 8)
    assert np.isnan(refused.embeddings).all()


def test_a_refusal_of_the_request_itself_concerns_no_item() -> None:
    assert read_refusal(refusal("parameter_invalid: unknown truncate"), 1) is None
    assert read_refusal(refusal("unexpected inference input 'foo'"), 1) is None
    assert read_refusal(refusal("text_too_long: only one of two"), 2) is None
    assert read_refusal(refusal("text_too_long: it is", grpc.StatusCode.UNAVAILABLE), 1) is None
