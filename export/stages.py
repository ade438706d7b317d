"""Stages of an export that run libraries over what a checkpoint says: whatever they raise becomes one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from export.errors import ExportError

_MAX_REASON_CHARS = 300


@contextmanager
def stage(name: str, refusal: type[ExportError], passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Name the stage that a malformed checkpoint breaks.

    A config may hold a word where a number belongs, a tokenizer may be of a kind that its library does not know: each
    library has its own exceptions for that, some of them bare `Exception`. The cause is kept for `--traceback`.

    Args:
        name: what cannot be done, as in "cannot build the embedder".
        refusal: the error to raise.
        passing: exceptions that somebody outside of the stage knows better.

    Raises:
        ExportError: of the type `refusal`, or what the stage itself has refused.
    """
    clear: tuple[type[Exception], ...] = (ExportError, *passing)
    try:
        yield
    except clear:
        raise
    except Exception as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
        raise refusal(f"cannot {name}: {reason[:_MAX_REASON_CHARS]}") from error
