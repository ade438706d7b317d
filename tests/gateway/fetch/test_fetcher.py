"""Fetching over the rig: answers, redirects, limits, TLS, and how much goes on at once."""

import asyncio
import time

import anyio
import pytest

from gateway.errors import DeadlineError, InvalidRequestError, OverloadedError, TooLargeError
from gateway.fetch import ByteBudget
from gateway.fetch.fetcher import NOT_FETCHED, UrlFetcher
from gateway.fetch.urls import UrlRules
from gateway.types import Deadline
from tests.gateway.fetch.conftest import MAX_BYTES, MakeFetcher
from tests.gateway.fetch.rig import IMAGE, PUBLIC, PUBLIC_IPV6, Authority, NameServer, Site, Wire, ok, redirect

GOOD = "http://images.example.com/a.png"
SECURE = "https://images.example.com/a.png"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * (MAX_BYTES * 3)


async def fetch(fetcher: UrlFetcher, url: str = GOOD, seconds: float = 5.0) -> bytes:
    return await fetcher.fetch(url, Deadline.after(seconds), ByteBudget(10 * MAX_BYTES))


async def test_request_reveals_the_host_and_nothing_else(
    make_fetcher: MakeFetcher, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.pages["/b?c=d"] = ok(IMAGE, "Set-Cookie: a=b")
    fetcher = make_fetcher()
    for _ in range(2):
        assert await fetch(fetcher, "http://images.example.com/b?c=d#e") == IMAGE
    for head in site.heads:
        line, *headers = head.strip().split("\r\n")
        assert line == "GET /b?c=d HTTP/1.1"
        names = sorted(header.partition(":")[0].lower() for header in headers)
        assert names == ["accept", "accept-encoding", "connection", "host", "user-agent"]


async def test_redirects_are_followed(make_fetcher: MakeFetcher, wire: Wire, site: Site) -> None:
    site.pages["/1"] = redirect("/sub/2", 301)
    site.pages["/sub/2"] = redirect("3?x=y", 307)
    site.pages["/sub/3?x=y"] = redirect("//other.example.com/a.png", 308)
    assert await fetch(make_fetcher(), "http://images.example.com/1") == IMAGE
    assert "host: other.example.com" in site.heads[-1].lower()
    assert len(wire.reached) == 4


async def test_endless_redirects_end(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pages["/a.png"] = redirect("/a.png")
    with pytest.raises(InvalidRequestError, match=NOT_FETCHED):
        await fetch(make_fetcher())
    assert site.connections == 4


@pytest.mark.parametrize(
    "page",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: //[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"+PONG\r\n",
        b"\x00" * 100,
        b"",
    ],
)
async def test_responses_without_an_image_fail_alike(make_fetcher: MakeFetcher, site: Site, page: bytes) -> None:
    site.pages["/a.png"] = page
    with pytest.raises(InvalidRequestError) as caught:
        await fetch(make_fetcher())
    assert caught.value.message == NOT_FETCHED


async def test_content_type_of_an_image_is_ignored(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pages["/a.png"] = ok(b"<svg/>", "Content-Type: text/html")
    assert await fetch(make_fetcher()) == b"<svg/>"


@pytest.mark.parametrize(
    "page",
    [
        f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n".encode(),  # and then nothing
        f"HTTP/1.1 200 OK\r\nContent-Length: {10**15}\r\n\r\n".encode() + b"a" * 1000,
        ENDLESS,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1000\r\n"
        + b"a" * 4096
        + b"\r\n"
        + (b"8000\r\n" + b"a" * 32768 + b"\r\n") * 4,
    ],
)
async def test_large_image_is_refused_by_its_announcement_or_midway(
    make_fetcher: MakeFetcher, site: Site, page: bytes
) -> None:
    site.pages["/a.png"] = page
    with pytest.raises(TooLargeError):
        await fetch(make_fetcher())


@pytest.mark.parametrize(
    "page",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 90_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000,
    ],
    ids=["chunks of one byte", "informational responses", "headers"],
)
async def test_a_response_that_is_mostly_overhead_is_given_up_and_delays_nobody(
    make_fetcher: MakeFetcher, site: Site, page: bytes
) -> None:
    site.pages["/a.png"] = page
    longest_s, stopping = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest_s
        while not stopping.is_set():
            before_s = time.monotonic()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.monotonic() - before_s)

    watching = asyncio.ensure_future(watch())
    with pytest.raises(InvalidRequestError, match=NOT_FETCHED):
        await fetch(make_fetcher())
    stopping.set()
    await watching
    assert longest_s < 1  # it was 5 to 16 s


async def test_image_at_the_limit_is_taken(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pages["/a.png"] = ok(b"a" * MAX_BYTES)
    assert len(await fetch(make_fetcher())) == MAX_BYTES


async def test_images_of_one_request_share_a_budget(make_fetcher: MakeFetcher, site: Site) -> None:
    fetcher, budget = make_fetcher(), ByteBudget(2 * len(IMAGE))
    for _ in range(2):
        assert await fetcher.fetch(GOOD, Deadline.after(5), budget) == IMAGE
    with pytest.raises(TooLargeError):
        await fetcher.fetch(GOOD, Deadline.after(5), budget)


async def test_second_address_is_tried_if_the_first_is_dead(
    make_fetcher: MakeFetcher, wire: Wire, names: NameServer
) -> None:
    names.answers = {"images.example.com": [[PUBLIC_IPV6, PUBLIC]]}
    wire.dead = {PUBLIC_IPV6: 60.0}
    assert await fetch(make_fetcher()) == IMAGE
    assert wire.reached == [(PUBLIC_IPV6, 80), (PUBLIC, 80)]


async def test_silent_host_is_given_up(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pages["/a.png"] = None
    started_s = time.monotonic()
    with pytest.raises(InvalidRequestError, match=NOT_FETCHED):
        await fetch(make_fetcher(timeout_s=0.1))
    assert time.monotonic() - started_s < 1
    await until_closed(site)


async def test_silent_host_is_given_up_at_the_requests_deadline_at_the_latest(
    make_fetcher: MakeFetcher, site: Site
) -> None:
    site.pages["/a.png"] = None
    started_s = time.monotonic()
    with pytest.raises(DeadlineError):
        await fetch(make_fetcher(), seconds=0.1)
    assert time.monotonic() - started_s < 1
    await until_closed(site)


async def test_cancelled_fetch_closes_its_connection_and_frees_its_slot(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pages["/b.png"] = None
    fetcher = make_fetcher(concurrency=1)
    work = asyncio.ensure_future(fetch(fetcher, "http://images.example.com/b.png"))
    while not site.heads:
        await asyncio.sleep(0.001)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await until_closed(site)
    assert await fetch(fetcher) == IMAGE


async def until_closed(site: Site) -> None:
    """Waits for the site to see its connections closed."""
    with anyio.fail_after(2):
        while site.open_now:
            await asyncio.sleep(0.001)


async def test_one_host_gets_no_more_than_its_share(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pause_s = 0.02
    fetcher = make_fetcher(host_concurrency=2)
    await asyncio.gather(*(fetch(fetcher) for _ in range(6)))
    assert site.most_open == 2


async def test_fetches_from_all_hosts_are_bounded(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pause_s = 0.02
    fetcher = make_fetcher(concurrency=3)
    hosts = ["images.example.com", "other.example.com"] * 4
    await asyncio.gather(*(fetch(fetcher, f"http://{host}/a.png") for host in hosts))
    assert site.most_open == 3


async def test_slow_host_does_not_hold_up_others(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pages["/slow"] = None
    fetcher = make_fetcher(concurrency=2, host_concurrency=1)
    slow = [asyncio.ensure_future(fetch(fetcher, "http://images.example.com/slow")) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert await fetch(fetcher, "http://other.example.com/a.png", seconds=1) == IMAGE
    for one in slow:
        one.cancel()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_full_queue_refuses_at_once_and_recovers(make_fetcher: MakeFetcher, site: Site) -> None:
    site.pause_s = 0.05
    fetcher = make_fetcher(concurrency=1, capacity=3)
    answers = await asyncio.gather(*(fetch(fetcher) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [bytes] * 3 + [OverloadedError] * 2
    assert await fetch(fetcher) == IMAGE


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("images.example.com")


async def test_tls_is_verified_for_the_name_over_the_checked_address(
    make_fetcher: MakeFetcher, wire: Wire, authority: Authority
) -> None:
    names: list[str] = []
    authority.server_context.sni_callback = lambda connection, name, context: names.append(name)
    async with Site().listening(authority.server_context) as secure:
        wire.sites = {443: secure}
        assert await fetch(make_fetcher(ssl_context=authority.client_context), SECURE) == IMAGE
    assert (names, wire.reached) == (["images.example.com"], [(PUBLIC, 443)])


@pytest.mark.parametrize(
    ("url", "trusted"), [("https://other.example.com/a.png", True), (SECURE, False), (f"https://{PUBLIC}/a.png", True)]
)
async def test_wrong_name_or_unknown_authority_is_a_failure(
    make_fetcher: MakeFetcher, wire: Wire, authority: Authority, url: str, trusted: bool
) -> None:
    context = authority.client_context if trusted else Authority("images.example.com").client_context
    async with Site().listening(authority.server_context) as secure:
        wire.sites = {443: secure}
        with pytest.raises(InvalidRequestError, match=NOT_FETCHED):
            await fetch(make_fetcher(ssl_context=context), url)
        assert secure.heads == []


async def test_https_redirect_to_http_is_refused_where_only_https_is_allowed(
    make_fetcher: MakeFetcher, wire: Wire, authority: Authority
) -> None:
    async with Site({"/a.png": redirect(GOOD)}).listening(authority.server_context) as secure:
        wire.sites = {443: secure, 80: secure}
        with pytest.raises(InvalidRequestError, match=NOT_FETCHED):
            await fetch(make_fetcher(UrlRules(), ssl_context=authority.client_context), SECURE)
    assert wire.reached == [(PUBLIC, 443)]
