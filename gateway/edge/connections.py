"""The open connections of a worker process: how many there are, from where, and how much they buffer."""

import logging
import resource
import time
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

from gateway.core.metrics import Metrics
from gateway.edge.refusals import RecentRefusals
from gateway.settings import Settings

logger = logging.getLogger(__name__)

RESERVED_DESCRIPTORS = 64
"""For everything but connections of clients: Triton, fetches, logs, Redis."""

SMALL_BODY_BYTES = 64 * 1024
"""What a body may take without regard to the budget, so that large bodies never keep small requests out."""

ADDRESS_SHARE = 0.5
"""Of the budget for buffered bytes, the most that one address may hold."""

LOG_INTERVAL_S = 10.0

CONNECTIONS = "connections"
"""Key of the `ConnectionTable` in the lifespan's state."""


EVICTED_SHARE = 0.01
"""Of all connections, the most that make room for new ones at once: looking for them takes a while."""


class Connection(Protocol):
    """What the table knows of a connection."""

    address: str

    @property
    def has_served(self) -> bool:
        """Whether it has received a whole request."""

    @property
    def is_idle(self) -> bool:
        """Whether it serves no request."""

    def drop(self, reason: str) -> None:
        """Close the connection at once."""


@dataclass(slots=True)
class Held:
    """What one connection buffers.

    Attributes:
        address: Of the client.
        bytes: Of the body that is being received or served.
        charged: Of these, what counts against the budget.
    """

    address: str
    bytes: int = 0
    charged: int = 0


class ConnectionTable:
    """The connections of one worker process.

    If there are too many, the oldest that serve no request make room for new ones: first those that have never sent a
    whole request, then those kept alive. So half-open connections keep out neither clients nor health checks.

    Args:
        settings: Limits.
        metrics: Where refusals are counted.

    Attributes:
        refusals: Of requests, a moment ago.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self._metrics = metrics
        self._max_connections = min(settings.max_connections, max_client_descriptors())
        self._connections: dict[Connection, None] = {}
        self._by_address: Counter[str] = Counter()
        self._buffered_bytes = 0
        self._bytes_by_address: Counter[str] = Counter()
        self._unsent: dict[Connection, int] = {}
        self._logged_at_s: dict[str, float] = {}
        self.refusals = RecentRefusals(settings, metrics)

    def add(self, connection: Connection) -> str | None:
        """Count a new connection, and close others if it is one too many.

        Returns:
            None, or the reason why this one must be refused.
        """
        is_full = len(self._connections) >= self._max_connections
        self._connections[connection] = None
        self._by_address[connection.address] += 1
        self._metrics.connections.inc()
        if self._by_address[connection.address] > self.settings.max_connections_per_address:
            return "address"
        return "connections" if is_full and not self._make_room(connection) else None

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        del self._connections[connection]
        self._metrics.connections.dec()
        self._by_address[connection.address] -= 1
        if not self._by_address[connection.address]:
            del self._by_address[connection.address]

    def hold(self, held: Held, count: int) -> bool:
        """Count bytes of a body that a connection buffers.

        Returns:
            Whether there is room for them.
        """
        held.bytes += count
        if held.bytes <= SMALL_BODY_BYTES:
            return True
        growth = held.bytes - SMALL_BODY_BYTES - held.charged
        held.charged += growth
        self._buffered_bytes += growth
        self._bytes_by_address[held.address] += growth
        limit = self.settings.max_buffered_bytes
        return self._buffered_bytes <= limit and self._bytes_by_address[held.address] <= ADDRESS_SHARE * limit

    def let_go(self, held: Held) -> None:
        """Forget what a connection buffered."""
        held.bytes = 0
        if not held.charged:
            return
        self._buffered_bytes -= held.charged
        self._bytes_by_address[held.address] -= held.charged
        if not self._bytes_by_address[held.address]:
            del self._bytes_by_address[held.address]
        held.charged = 0

    def mark_unsent(self, connection: Connection, count: int) -> None:
        """Note how much of a response its client has yet to read; if all are too much, drop the oldest."""
        self._unsent[connection] = count
        while sum(self._unsent.values()) > self.settings.max_unsent_bytes and len(self._unsent) > 1:
            oldest = next(iter(self._unsent))
            del self._unsent[oldest]
            oldest.drop("unsent")

    def mark_sent(self, connection: Connection) -> None:
        """Note that the client has read its response, or has left."""
        self._unsent.pop(connection, None)

    def note_refusal(self, reason: str, address: str) -> None:
        """Count a connection that was refused or closed, and log it, but not each one of a flood."""
        self._metrics.count_refusal(reason)
        now_s = time.monotonic()
        if now_s - self._logged_at_s.get(reason, float("-inf")) >= LOG_INTERVAL_S:
            self._logged_at_s[reason] = now_s
            logger.warning(
                "refused a connection from %s (%s); %d are open, with %d bytes of bodies",
                address,
                reason,
                len(self._connections),
                self._buffered_bytes,
            )

    def _make_room(self, newest: Connection) -> bool:
        """Close the oldest connections that serve no request; return whether there was one."""
        idle = [connection for connection in self._connections if connection is not newest and connection.is_idle]
        idle.sort(key=lambda connection: connection.has_served)
        for connection in idle[: 1 + int(EVICTED_SHARE * self._max_connections)]:
            connection.drop("evicted")
        return bool(idle)


def max_client_descriptors() -> int:
    """Return how many connections this process has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - RESERVED_DESCRIPTORS)


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as its hard limit does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
