"""Progress on stderr: one line when a step begins or ends, with the time it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Progress:
    """Writes `[  12.3 s] step` lines; the time counts from the start of the export."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    started: float = field(default_factory=time.monotonic)

    def say(self, message: str) -> None:
        """Write one line."""
        self.stream.write(f"[{time.monotonic() - self.started:6.1f} s] {message}\n")
        self.stream.flush()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step before it runs, so that a reader knows what is being waited for."""
        self.say(f"{name} ...")
        begun = time.monotonic()
        yield
        self.say(f"{name}: done in {time.monotonic() - begun:.1f} s")
