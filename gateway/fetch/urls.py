"""Image URLs and the addresses behind them: one strict reading, and refusal wherever two readers could differ."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias
from urllib.parse import quote

IPAddress: TypeAlias = IPv4Address | IPv6Address

MAX_URL_CHARS = 8192
MAX_NAME_CHARS = 253

PORTS = frozenset({80, 443})
DEFAULT_PORT = {"http": 80, "https": 443}

FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
"""Control characters, white space, and the backslash, which some readers take for a slash."""

FORM = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f.]*:[0-9a-f:.]*\]|[a-z0-9._-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<target>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,  # without ASCII, the Kelvin sign matches k
)
"""RFC 3986 without user information, and with an ASCII host: names in other scripts are written in Punycode."""

LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"(?:{LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
"""At least two labels, the last of which begins with a letter: not `localhost`, `2130706433`, `127.1` or `0x7f.1`."""

LOCAL_NAMES = frozenset(
    {"alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain"}
    | {"localhost", "onion", "private", "test"}
)
"""Last labels that the public DNS does not have. They are not looked up: a name server may be a metadata service."""

TARGET_CHARACTERS = "%/?:@!$&'()*+,;=-._~[]"
"""What a path and query may hold unescaped, beside letters and digits (RFC 3986)."""

# From IANA's special-purpose address registries. Written out, because `is_global` differs between versions of Python,
# and takes multicast, NAT64 and 6to4 addresses for global.
REFUSED_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers; a cloud's metadata at 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's platform, on a public address
            "169.254.0.0/16",  # link-local, and most clouds' metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; a cloud's metadata at 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # multicast tunnels
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

PUBLIC_IPV6 = IPv6Network("2000::/3")
"""All of IPv6 that is allocated as global unicast. Outside are loopback, embedded IPv4 (`::/96`, `::ffff:0:0/96`,
NAT64's `64:ff9b::/96` and `64:ff9b:1::/48`), unique local, link-local, site-local, and multicast addresses."""

REFUSED_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an embedded IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


class UnfetchableError(Exception):
    """The URL is refused, or yielded no image. The reason is for the log only."""


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    """A URL that has passed the rules.

    Attributes:
        scheme: `http` or `https`.
        host: A name in lower case, or an IP address without brackets.
        port: TCP port.
        target: Path and query, in ASCII.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as in a URL and in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL in its canonical form."""
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class UrlRules:
    """Which URLs may be fetched.

    Attributes:
        schemes: Of `http` and `https`.
        hosts: The only ones allowed, unless empty; an entry that begins with a dot stands for all names that end in it.
        ports: TCP ports.
    """

    schemes: frozenset[str] = frozenset({"https"})
    hosts: frozenset[str] = frozenset()
    ports: frozenset[int] = PORTS

    def parse(self, url: str) -> ParsedUrl:
        """Return the parts of a URL.

        Raises:
            UnfetchableError: It is malformed, ambiguous, or against the rules.
        """
        form = None if len(url) > MAX_URL_CHARS or FORBIDDEN.search(url) else FORM.fullmatch(url)
        if form is None:
            raise UnfetchableError("malformed URL")
        scheme, host = form["scheme"].lower(), form["host"].lower().strip("[]")
        port = int(form["port"] or DEFAULT_PORT[scheme])
        if scheme not in self.schemes or port not in self.ports:
            raise UnfetchableError("scheme or port not allowed")
        if parse_ip_address(host) is None:
            check_name(host)
        if self.hosts and not any(host == entry or (entry[0] == "." and host.endswith(entry)) for entry in self.hosts):
            raise UnfetchableError("host not in the list")
        target = quote(form["target"] or "/", safe=TARGET_CHARACTERS)
        return ParsedUrl(scheme, host, port, target if target.startswith("/") else f"/{target}")


def parse_ip_address(host: str) -> IPAddress | None:
    """Return the host as an IP address in its usual form, or None if it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_name(host: str) -> None:
    """Check that the public DNS can have this name.

    Raises:
        UnfetchableError: It cannot.
    """
    if len(host) > MAX_NAME_CHARS or not NAME.fullmatch(host):
        raise UnfetchableError("not a public name")
    if host.rpartition(".")[2] in LOCAL_NAMES:
        raise UnfetchableError("local name")


def is_public(address: IPAddress) -> bool:
    """Return whether the address belongs to a single host in the public internet."""
    if isinstance(address, IPv4Address):
        refused = any(address in network for network in REFUSED_IPV4)
    else:
        refused = address not in PUBLIC_IPV6 or any(address in network for network in REFUSED_IPV6)
    return address.is_global and not refused
