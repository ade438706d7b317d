"""Fetchers over the rig."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from gateway.fetch.fetcher import FetchLimits, UrlFetcher
from gateway.fetch.network import FetchQueue, GuardedNetwork
from gateway.fetch.urls import UrlRules
from tests.gateway.fetch.rig import PUBLIC, NameServer, Site, Wire

CONNECT_TIMEOUT_S = 1.0
MAX_BYTES = 100_000
ANY_SCHEME = UrlRules(frozenset({"http", "https"}))
NO_AUTHORITY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

MakeFetcher = Callable[..., UrlFetcher]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site().listening() as site:
        yield site


@pytest.fixture
def wire(site: Site) -> Wire:
    return Wire({80: site, 443: site})


@pytest.fixture
def names() -> NameServer:
    answers: dict[str, Sequence[Sequence[str]]] = {"images.example.com": [[PUBLIC]], "other.example.com": [[PUBLIC]]}
    return NameServer(answers)


@pytest.fixture
def make_fetcher(wire: Wire, names: NameServer) -> MakeFetcher:
    def make(
        rules: UrlRules = ANY_SCHEME,
        *,
        failure_s: float = 0.0,
        timeout_s: float = 5.0,
        concurrency: int = 8,
        host_concurrency: int = 8,
        capacity: int = 100,
        ssl_context: ssl.SSLContext = NO_AUTHORITY,
    ) -> UrlFetcher:
        return UrlFetcher(
            rules,
            GuardedNetwork(names, wire, CONNECT_TIMEOUT_S),
            FetchQueue(concurrency=concurrency, host_concurrency=host_concurrency, capacity=capacity),
            FetchLimits(MAX_BYTES, timeout_s, failure_s),
            ssl_context,
        )

    return make
