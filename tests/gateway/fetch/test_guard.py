"""No packet reaches an address that is not public: every socket goes over the rig's wire, which leads to a listener."""

import asyncio
import re
import time

import httpcore
import pytest

from gateway.errors import InvalidRequestError
from gateway.fetch import ByteBudget, network
from gateway.fetch.fetcher import NOT_FETCHED, FetchLimits, UrlFetcher
from gateway.fetch.network import MAX_READ_BYTES, DnsResolver, FetchQueue, GuardedNetwork, WireMeter
from gateway.fetch.urls import UnfetchableError, UrlRules
from gateway.types import Deadline
from tests.gateway.fetch.conftest import CONNECT_TIMEOUT_S, NO_AUTHORITY, MakeFetcher
from tests.gateway.fetch.refused import ADDRESSES, FORMS, LITERALS
from tests.gateway.fetch.rig import IMAGE, PUBLIC, PUBLIC_IPV6, NameServer, Site, Wire, redirect

GOOD = "http://images.example.com/a.png"
REDIRECTS = [url for url in FORMS if re.fullmatch(r"[a-z]+://[!-~]*", url)]
"""The others read as paths of the redirecting host, or cannot be written in a header."""

TIME_CLASS_S = 0.2
"""How far apart failures may be reported on a busy machine."""


async def refuse(fetcher: UrlFetcher, url: str) -> float:
    """Seconds until the fetcher said no, in its one text."""
    started_s = time.monotonic()
    with pytest.raises(InvalidRequestError) as caught:
        await fetcher.fetch(url, Deadline.after(10), ByteBudget(1000))
    assert caught.value.message == NOT_FETCHED
    assert caught.value.retry_after_s is None
    return time.monotonic() - started_s


async def test_control_a_public_name_is_reached_at_its_checked_address(
    make_fetcher: MakeFetcher, wire: Wire, site: Site
) -> None:
    assert await make_fetcher().fetch(GOOD, Deadline.after(5), ByteBudget(1000)) == IMAGE
    assert (wire.reached, site.connections) == ([(PUBLIC, 80)], 1)
    assert "host: images.example.com\r\n" in site.heads[0].lower()


@pytest.mark.parametrize("url", LITERALS)
async def test_literal_addresses_are_not_reached(make_fetcher: MakeFetcher, wire: Wire, site: Site, url: str) -> None:
    await refuse(make_fetcher(), url)
    assert (wire.reached, site.connections) == ([], 0)


@pytest.mark.parametrize("url", FORMS)
async def test_hidden_addresses_are_neither_reached_nor_looked_up(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer, url: str
) -> None:
    await refuse(make_fetcher(), url)
    assert (wire.reached, names.asked) == ([], [])


@pytest.mark.parametrize("address", ADDRESSES)
async def test_names_of_refused_addresses_are_not_reached(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer, address: str
) -> None:
    names.answers = {"images.example.com": [[address]]}
    await refuse(make_fetcher(), GOOD)
    assert (wire.reached, names.asked) == ([], ["images.example.com"])


@pytest.mark.parametrize(
    "addresses", [[PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, PUBLIC_IPV6, "::1"], [PUBLIC] * 9 + ["fe80::1"]]
)
async def test_one_refused_address_among_public_ones_refuses_all(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer, addresses: list[str]
) -> None:
    names.answers = {"images.example.com": [addresses]}
    await refuse(make_fetcher(), GOOD)
    assert wire.reached == []


async def test_rebinding_name_is_looked_up_once_and_stays_at_the_checked_address(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer
) -> None:
    names.answers = {"images.example.com": [[PUBLIC], ["127.0.0.1"]]}
    fetcher = make_fetcher()
    assert await fetcher.fetch(GOOD, Deadline.after(5), ByteBudget(1000)) == IMAGE
    assert names.asked == ["images.example.com"]
    await refuse(fetcher, GOOD)
    assert wire.reached == [(PUBLIC, 80)]


@pytest.mark.parametrize("target", [*LITERALS, *REDIRECTS, "http://inside.example.com/a.png"])
async def test_every_redirect_is_checked(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer, site: Site, target: str
) -> None:
    names.answers = {"images.example.com": [[PUBLIC]], "inside.example.com": [["10.0.0.1"]]}
    site.pages["/a.png"] = redirect(target)
    await refuse(make_fetcher(), GOOD)
    assert wire.reached == [(PUBLIC, 80)]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/a.png", "http://localhost:{}/a.png", "http://2130706433:{}/a.png"]
)
async def test_nothing_arrives_at_a_real_listener_on_loopback(site: Site, url: str) -> None:
    fetcher = fetcher_of_this_machine(site)
    await refuse(fetcher, url.format(site.port))
    assert site.connections == 0


async def test_control_without_the_check_the_real_listener_is_reached(
    monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    monkeypatch.setattr(network, "is_public", lambda address: True)
    url = f"http://127.0.0.1:{site.port}/a.png"
    assert await fetcher_of_this_machine(site).fetch(url, Deadline.after(5), ByteBudget(1000)) == IMAGE


def fetcher_of_this_machine(site: Site) -> UrlFetcher:
    """A fetcher with the system's resolver and real sockets, allowed to use the site's port."""
    return UrlFetcher(
        UrlRules(frozenset({"http"}), ports=frozenset({site.port})),
        GuardedNetwork(DnsResolver(), httpcore.AnyIOBackend(), CONNECT_TIMEOUT_S),
        FetchQueue(concurrency=8, host_concurrency=8, capacity=8),
        FetchLimits(1000, 5.0, 0.0),
        NO_AUTHORITY,
    )


async def test_system_resolver_finds_what_the_system_does() -> None:
    found = await DnsResolver().resolve("localhost")
    assert found
    assert {str(address) for address in found} <= {"127.0.0.1", "::1"}
    with pytest.raises(OSError):
        await DnsResolver().resolve("no-such-name.invalid")


async def test_every_failure_has_the_same_message_and_timing(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer
) -> None:
    names.answers = {
        "inside.example.com": [["10.0.0.1"]],
        "closed.example.com": [["1.1.1.1"]],
        "silent.example.com": [["1.0.0.1"]],
        "mixed.example.com": [[PUBLIC, "127.0.0.1"]],
        "images.example.com": [[PUBLIC]],
    }
    wire.dead = {"1.1.1.1": 0.0, "1.0.0.1": 60.0}
    urls = [f"http://{host}.example.com/missing" for host in ("inside", "closed", "silent", "mixed", "none", "images")]
    fetcher = make_fetcher(failure_s=CONNECT_TIMEOUT_S)
    urls += ["http://127.0.0.1/", "http://2130706433/", "nonsense"]
    took_s = await asyncio.gather(*(refuse(fetcher, url) for url in urls))
    assert min(took_s) >= CONNECT_TIMEOUT_S - 0.001
    assert max(took_s) - min(took_s) < TIME_CLASS_S


async def test_slow_name_server_does_not_show_in_the_time(make_fetcher: MakeFetcher, names: NameServer) -> None:
    fetcher = make_fetcher(failure_s=CONNECT_TIMEOUT_S)
    names.answers = {"images.example.com": [["10.0.0.1"]]}
    quick_s = await refuse(fetcher, GOOD)
    names.delay_s = 60
    assert abs(await refuse(fetcher, GOOD) - quick_s) < TIME_CLASS_S


def test_a_file_that_arrives_after_its_head_is_no_overhead() -> None:
    meter = WireMeter()
    for arrived in (300, MAX_READ_BYTES, MAX_READ_BYTES):
        meter.count(arrived)
        meter.file_bytes += arrived if meter.head_is_read else 0
        meter.head_is_read = True


def test_what_brings_nothing_is_overhead() -> None:
    meter = WireMeter()
    meter.count(MAX_READ_BYTES + 1)
    with pytest.raises(UnfetchableError):
        meter.count(1)
