"""Responses go out in one write."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from gateway.edge.transport import CoalescingTransport


@dataclass
class RecordingTransport:
    """Keeps what is written."""

    written: list[bytes] = field(default_factory=list)
    closing: bool = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True


def coalesce(recording: RecordingTransport) -> CoalescingTransport:
    return CoalescingTransport(cast(Any, recording))


async def test_writes_of_one_turn_are_sent_together_and_in_order() -> None:
    recording = RecordingTransport()
    transport = coalesce(recording)
    transport.write(b"head ")
    transport.write(b"body")
    assert recording.written == []
    await asyncio.sleep(0)
    transport.write(b"next")
    await asyncio.sleep(0)
    assert recording.written == [b"head body", b"next"]


async def test_closing_sends_what_is_pending_first_and_nothing_after() -> None:
    recording = RecordingTransport()
    transport = coalesce(recording)
    transport.write(b"last words")
    transport.close()
    assert (recording.written, transport.is_closing()) == ([b"last words"], True)
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert recording.written == [b"last words"]
