"""Every gRPC status becomes a gateway error."""

import grpc
import pytest

from gateway.engine.grpc_errors import ERROR_OF_STATUS, grpc_errors_translated, translate_error
from gateway.errors import DeadlineError, EngineFaultError, EngineUnavailableError, OverloadedError

SECRET = "/models/secret/model.py line 3"


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
def test_every_status_is_translated_without_engine_text(status: grpc.StatusCode) -> None:
    with pytest.raises(ERROR_OF_STATUS[status]) as caught, grpc_errors_translated():
        raise grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), SECRET, SECRET)
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ("Exceeds maximum queue size", OverloadedError),
        ("in ensemble 'm_text', Request timeout expired", DeadlineError),
        (
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            EngineUnavailableError,
        ),
    ],
)
def test_unavailable_is_distinguished_by_its_details(details: str, kind: type[Exception]) -> None:
    assert type(translate_error(grpc.StatusCode.UNAVAILABLE, details)) is kind


def test_transient_errors_have_retry_after() -> None:
    assert translate_error(grpc.StatusCode.UNAVAILABLE, "").retry_after_s
    assert translate_error(grpc.StatusCode.UNIMPLEMENTED, "").retry_after_s is None
    assert isinstance(translate_error(grpc.StatusCode.INVALID_ARGUMENT, ""), EngineFaultError)
