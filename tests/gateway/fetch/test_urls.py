"""How URLs are parsed, and which addresses count as public."""

from ipaddress import ip_address

import pytest

from gateway.fetch.urls import UnfetchableError, UrlRules, is_public
from tests.gateway.fetch.refused import ADDRESSES, FORMS

BOTH = UrlRules(frozenset({"http", "https"}))


@pytest.mark.parametrize("url", FORMS)
def test_ambiguous_and_malformed_urls_are_not_read(url: str) -> None:
    with pytest.raises(UnfetchableError):
        BOTH.parse(url)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://a.example.com/b.png", ("https", "a.example.com", 443, "/b.png")),
        ("HTTPS://A.Example.COM/B.png", ("https", "a.example.com", 443, "/B.png")),
        ("http://a.example.com", ("http", "a.example.com", 80, "/")),
        ("http://a.example.com?b=c", ("http", "a.example.com", 80, "/?b=c")),
        ("http://a.example.com:443/b", ("http", "a.example.com", 443, "/b")),
        ("https://a.example.com/b.png?c=%20&d=[e]#f@g", ("https", "a.example.com", 443, "/b.png?c=%20&d=[e]")),
        ("https://a.example.com/bücher/{c}.png", ("https", "a.example.com", 443, "/b%C3%BCcher/%7Bc%7D.png")),
        ("https://my_bucket.s3.example.com/a", ("https", "my_bucket.s3.example.com", 443, "/a")),
        ("https://xn--bcher-kva.example.com/", ("https", "xn--bcher-kva.example.com", 443, "/")),
        ("https://1.1.1.1/a", ("https", "1.1.1.1", 443, "/a")),
        ("https://[2606:4700::1111]/a", ("https", "2606:4700::1111", 443, "/a")),
    ],
)
def test_plain_urls_are_read(url: str, read: tuple[str, str, int, str]) -> None:
    parts = BOTH.parse(url)
    assert (parts.scheme, parts.host, parts.port, parts.target) == read


@pytest.mark.parametrize("url", ["https://a.example.com/b?c", "http://[2606:4700::1111]:443/", "https://1.1.1.1/"])
def test_canonical_url_parses_to_itself(url: str) -> None:
    assert str(BOTH.parse(url)) == url
    assert BOTH.parse(str(BOTH.parse(url))) == BOTH.parse(url)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("a.example.com", True),
        ("b.example.com", False),
        ("a.example.com.evil.com", False),
        ("evil-a.example.com", False),
        ("x.cdn.example.com", True),
        ("x.y.cdn.example.com", True),
        ("cdn.example.com", False),
        ("evilcdn.example.com", False),
        ("1.1.1.1", False),
    ],
)
def test_listed_hosts_alone_are_allowed(host: str, allowed: bool) -> None:
    rules = UrlRules(hosts=frozenset({"a.example.com", ".cdn.example.com"}))
    if allowed:
        assert rules.parse(f"https://{host}/").host == host
    else:
        with pytest.raises(UnfetchableError):
            rules.parse(f"https://{host}/")


def test_https_only_refuses_http() -> None:
    with pytest.raises(UnfetchableError):
        UrlRules().parse("http://a.example.com/")


@pytest.mark.parametrize("address", ADDRESSES)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "93.184.215.14", "168.63.129.15", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))
