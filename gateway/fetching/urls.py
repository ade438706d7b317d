"""The address of a picture as a client wrote it: one strict reading, and none where two readers could differ."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import quote

from gateway.fetching.addresses import IPAddress

MAX_URL_CHARS = 8192
MAX_NAME_CHARS = 253

PORTS = frozenset({80, 443})
DEFAULT_PORT = {"http": 80, "https": 443}

FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
"""Control characters, white space, and what some readers take for a slash."""

FORM = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f.]*:[0-9a-f:.]*\]|[a-z0-9._-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<target>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,  # without ASCII, the Kelvin sign is a k
)
"""RFC 3986 without user information, and with an ASCII host: names of other scripts are written in Punycode."""

LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"(?:{LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
"""At least two labels, the last one begun by a letter; `localhost`, `2130706433`, `127.1` and `0x7f.1` are none."""

LOCAL_NAMES = frozenset(
    {"alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain"}
    | {"localhost", "onion", "private", "test"}
)
"""Last labels that the public DNS does not have; a name server is not even asked, for it can be a metadata service."""

TARGET_CHARACTERS = "%/?:@!$&'()*+,;=-._~[]"
"""Beside letters and digits, what a path and query may hold unescaped (RFC 3986)."""


class UnfetchableError(Exception):
    """No picture is fetched from this address, or comes from it. The reason is for the log only."""


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """An address that has been read.

    Attributes:
        scheme: `http` or `https`.
        host: a name in lower case, or an IP address without brackets.
        port: of TCP.
        target: path and query, in ASCII.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL and in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The URL, in its one form."""
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class UrlRules:
    """Which addresses are looked at further.

    Attributes:
        schemes: of `http` and `https`.
        hosts: the only ones, unless empty; an entry that begins with a dot stands for all names that end in it.
        ports: of TCP.
    """

    schemes: frozenset[str] = frozenset({"https"})
    hosts: frozenset[str] = frozenset()
    ports: frozenset[int] = PORTS

    def read(self, url: str) -> PictureUrl:
        """The parts of an address.

        Raises:
            UnfetchableError: malformed, ambiguous, or against the rules.
        """
        form = None if len(url) > MAX_URL_CHARS or FORBIDDEN.search(url) else FORM.fullmatch(url)
        if form is None:
            raise UnfetchableError("malformed URL")
        scheme, host = form["scheme"].lower(), form["host"].lower().strip("[]")
        port = int(form["port"] or DEFAULT_PORT[scheme])
        if scheme not in self.schemes or port not in self.ports:
            raise UnfetchableError("scheme or port not allowed")
        if read_ip_address(host) is None:
            check_name(host)
        if self.hosts and not any(host == entry or (entry[0] == "." and host.endswith(entry)) for entry in self.hosts):
            raise UnfetchableError("host not in the list")
        target = quote(form["target"] or "/", safe=TARGET_CHARACTERS)
        return PictureUrl(scheme, host, port, target if target.startswith("/") else f"/{target}")


def read_ip_address(host: str) -> IPAddress | None:
    """The host as an IP address in its usual form, or None where it is none."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_name(host: str) -> None:
    """Lets names through that the public DNS can have.

    Raises:
        UnfetchableError: another one, or no name.
    """
    if len(host) > MAX_NAME_CHARS or not NAME.fullmatch(host):
        raise UnfetchableError("not a public name")
    if host.rpartition(".")[2] in LOCAL_NAMES:
        raise UnfetchableError("local name")
