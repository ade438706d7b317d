"""The address of a client, behind reverse proxies or not."""

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope

from gateway.settings import IPNetwork


def read_client_address(scope: Scope, trusted_proxies: Collection[IPNetwork]) -> str:
    """Return the address of a request's client, or an empty string if its connection has none.

    That is the connection's peer, unless the peer is a trusted proxy: then it is the last address in X-Forwarded-For
    that is not a trusted proxy's. Each proxy adds its own peer at the end; anybody may have written what comes before.

    Args:
        scope: ASGI scope of the request.
        trusted_proxies: Addresses of the proxies whose X-Forwarded-For counts.
    """
    peer = scope.get("client")
    address = parse_address(peer[0]) if peer else None
    if address is None:
        return ""
    for forwarded in list_forwarded(scope):
        if not any(address in network for network in trusted_proxies):
            break
        further = parse_address(forwarded)
        if further is None:  # what a proxy cannot name, nobody before it can either
            break
        address = further
    return str(address)


def list_forwarded(scope: Scope) -> Iterator[str]:
    """Yield the entries of X-Forwarded-For, the last one first."""
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    yield from reversed(",".join(lines).split(","))


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in a text that may have a port as well, or None; IPv4 within IPv6 becomes IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
