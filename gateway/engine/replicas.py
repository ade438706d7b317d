"""The Tritons behind one gateway: which of them gets an inference request, and which is left alone for a while."""

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.engine.discovery import Discovery, TritonModel, discover_models
from gateway.engine.grpc_errors import QUEUE_FULL, QUEUE_TIMEOUT, is_gone
from gateway.engine.interface import ServedModel
from gateway.errors import EngineUnavailableError, ModelReplacedError

logger = logging.getLogger(__name__)

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # By default gRPC waits up to two minutes before it tries a restarted Triton again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Detects a peer that disappeared without closing the connection.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Replicas at one address must not share a connection's state.
    ("grpc.use_local_subchannel_pool", 1),
)

CHECK_INTERVAL_S = 2.0
CHECK_TIMEOUT_S = 3.0
DISCOVERY_TIMEOUT_S = 5.0
CLOSE_GRACE_S = 5.0

MAX_FAILURES = 2
"""Consecutive failures after which a replica is left alone."""

MIN_EJECTION_S = 1.0
MAX_EJECTION_S = 30.0

RETRY_SHARE = 0.1
MAX_RETRIES = 10.0
"""Retries are at most this share of all calls, and at most this many after a quiet time."""


class Replica:
    """One Triton.

    Args:
        target: Its address, as gRPC takes it.

    Attributes:
        models: What it serves, by public id, as far as is known.
        unavailable: What it could not load.
        in_flight: Estimated tokens that it works on for this gateway.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.models: Mapping[str, TritonModel] = {}
        self.unavailable: frozenset[str] = frozenset()
        self.in_flight = 0
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self.stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._failures = 0
        self._ejection_s = MIN_EJECTION_S
        self._ejected_until_s = 0.0

    @property
    def is_ejected(self) -> bool:
        """Whether it is left alone, because it has failed."""
        return time.monotonic() < self._ejected_until_s

    def record_success(self) -> None:
        """Note that a call, or a check, has succeeded."""
        self._failures = 0
        self._ejection_s = MIN_EJECTION_S
        self._ejected_until_s = 0.0

    def record_failure(self) -> None:
        """Note that the connection was lost, or a check failed; leave the replica alone if that is too often."""
        self._failures += 1
        if self._failures >= MAX_FAILURES and not self.is_ejected:
            logger.info("Triton at %s does not respond", self.target)
            self._ejected_until_s = time.monotonic() + self._ejection_s
            self._ejection_s = min(2 * self._ejection_s, MAX_EJECTION_S)

    async def check(self) -> None:
        """Ask whether it is live, and record the answer."""
        try:
            response = await self.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=CHECK_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self.record_failure()
        else:
            self.record_success() if response.live else self.record_failure()

    async def discover(self) -> None:
        """Read what it serves.

        Raises:
            EngineUnavailableError: It cannot be reached.
        """
        found = await discover_models(self.stub, DISCOVERY_TIMEOUT_S)
        self.models, self.unavailable = found.models, found.unavailable

    def serves(self, model: ServedModel) -> bool:
        """Return whether it serves the model, in the same embedding space."""
        found = self.models.get(model.public_id)
        return found is not None and found.served.identity == model.identity

    async def close(self) -> None:
        """Close the channel after giving calls in flight a moment to end."""
        await self._channel.close(CLOSE_GRACE_S)


class ReplicaSet:
    """All Tritons that a setting names.

    Args:
        urls: Their addresses, separated by commas: `host:port`, where every address of a name is a replica, or
            `unix:/path`.
    """

    def __init__(self, urls: str) -> None:
        self._urls = [url.strip() for url in urls.split(",") if url.strip()]
        self._replicas: dict[str, Replica] = {}
        self._retries = MAX_RETRIES
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open a channel to each replica, and watch them from now on."""
        await self._resolve()
        self._start(self._run())

    async def close(self) -> None:
        """Close all channels."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(replica.close() for replica in self._replicas.values()))

    async def discover(self) -> Discovery:
        """Read what all replicas serve.

        Returns:
            Their models; one that replicas serve in different embedding spaces as the first of them does. Those
            unavailable are served by none.

        Raises:
            EngineUnavailableError: None can be reached.
        """
        replicas = list(self._replicas.values())
        outcomes = await asyncio.gather(*(replica.discover() for replica in replicas), return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if len(errors) == len(outcomes):
            raise errors[0] if errors else EngineUnavailableError
        models: dict[str, TritonModel] = {}
        for replica in replicas:
            for public_id, model in replica.models.items():
                models.setdefault(public_id, model)
        unavailable = frozenset[str]().union(*(replica.unavailable for replica in replicas))
        return Discovery(dict(sorted(models.items())), unavailable - models.keys())

    def pick(self, model: ServedModel, but: Replica | None = None) -> Replica:
        """Return the replica for an inference request: of those that serve the model, the one with the least to do.

        Args:
            model: That it is for.
            but: A replica that has just failed.

        Raises:
            ModelReplacedError: No replica serves the model in that embedding space any more.
        """
        candidates = [replica for replica in self._replicas.values() if replica is not but and replica.serves(model)]
        if not candidates:
            raise ModelReplacedError
        healthy = [replica for replica in candidates if not replica.is_ejected]
        return min(healthy or candidates, key=lambda replica: replica.in_flight)

    def pick_for_retry(self, model: ServedModel, failed: Replica) -> Replica | None:
        """Return another replica for a request whose connection was lost, or None.

        Retries have a budget, so that a request which breaks its replica, or a failure of all, does not multiply.
        """
        if self._retries < 1:
            return None
        try:
            other = self.pick(model, but=failed)
        except ModelReplacedError:
            return None
        self._retries -= 1
        return other

    def earn_retry(self) -> None:
        """Count a call towards the budget of retries."""
        self._retries = min(self._retries + RETRY_SHARE, MAX_RETRIES)

    async def _run(self) -> None:
        """Look up names again and check every replica, for ever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self._resolve()
            if len(self._replicas) > 1:
                await asyncio.gather(*(replica.check() for replica in self._replicas.values()))

    async def _resolve(self) -> None:
        """Add a replica for each address that is new, and close those that are no longer there."""
        targets = await resolve_targets(self._urls)
        if targets is None:
            return
        for target in [target for target in targets if target not in self._replicas]:
            replica = self._replicas[target] = Replica(target)
            if len(self._replicas) > 1:
                logger.info("using Triton at %s", target)
                self._start(learn_models(replica))
        for target in [target for target in self._replicas if target not in targets]:
            logger.info("no longer using Triton at %s", target)
            self._start(self._replicas.pop(target).close())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the event loop keeps no reference
        task.add_done_callback(self._tasks.discard)


async def learn_models(replica: Replica) -> None:
    """Read what a new replica serves; if it cannot be reached, the next renewal of the list of models will."""
    try:
        await replica.discover()
    except EngineUnavailableError:
        logger.info("Triton at %s does not respond yet", replica.target)


async def resolve_targets(urls: Sequence[str]) -> Sequence[str] | None:
    """Return the targets of URLs: every address of a name is one.

    A single name with a single address stays as it is: gRPC looks it up again when it reconnects.

    Returns:
        None if a name cannot be looked up at the moment.
    """
    targets: dict[str, None] = {}
    for url in urls:
        host, _, port = url.rpartition(":")
        if url.startswith("unix:") or not port.isdecimal() or is_address(host):
            targets[url] = None
            continue
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError:
            return [url] if len(urls) == 1 else None
        # A host with addresses of both families is one replica, not two.
        family = socket.AF_INET if any(entry[0] == socket.AF_INET for entry in found) else socket.AF_INET6
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found if entry[0] == family)
        if len(urls) == len(addresses) == 1:
            return [url]
        template = "{}:{}" if family == socket.AF_INET else "[{}]:{}"
        targets.update((template.format(address, port), None) for address in addresses)
    return list(targets)


def is_address(host: str) -> bool:
    """Return whether a host is an IP address rather than a name."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a call failed because its replica went away, not because it is overloaded or lacks the model."""
    if is_gone(error):
        return False
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAVAILABLE and QUEUE_FULL not in details and QUEUE_TIMEOUT not in details
