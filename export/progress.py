"""Progress on stderr, and errors that name the stage that failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from export.errors import ExportError

_MAX_REASON_CHARS = 300


@dataclass
class Progress:
    """A writer of `[  12.3 s] message` lines, timed from the start of the export."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    started: float = field(default_factory=time.monotonic)

    def say(self, message: str) -> None:
        """Write one line."""
        self.stream.write(f"[{time.monotonic() - self.started:6.1f} s] {message}\n")
        self.stream.flush()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Write a line when a step begins, and another with its duration when it succeeds."""
        self.say(f"{name} ...")
        begun = time.monotonic()
        yield
        self.say(f"{name}: done in {time.monotonic() - begun:.1f} s")


@contextmanager
def stage(name: str, error_type: type[ExportError], passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn whatever a library raises over a malformed checkpoint into one line that names the stage.

    A config may hold a word where a number belongs, and a tokenizer may be of an unknown kind. Each library has its own
    exceptions for that, some of them bare `Exception`. The cause is kept for `--traceback`.

    Args:
        name: What failed, to follow "cannot": "build the embedder".
        error_type: Type of the error to raise.
        passing: Exceptions to let through to a handler that explains them better.

    Raises:
        ExportError: The stage failed. It is an `error_type`, or the `ExportError` that the stage itself raised.
    """
    clear: tuple[type[Exception], ...] = (ExportError, *passing)
    try:
        yield
    except clear:
        raise
    except Exception as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
        raise error_type(f"cannot {name}: {reason[:_MAX_REASON_CHARS]}") from error
