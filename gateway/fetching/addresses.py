"""Which IP addresses lie in the public internet."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address

# From IANA's special-purpose address registries, written out: what `is_global` says differs between versions of
# Python, and it takes multicast, NAT64 and 6to4 addresses for global.
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
"""All of IPv6 that is given out as global unicast. Outside lie loopback, IPv4 in disguise (`::/96`, `::ffff:0:0/96`,
NAT64's `64:ff9b::/96` and `64:ff9b:1::/48`), unique local, link-local, site-local, and multicast addresses."""

REFUSED_IPV6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an IPv4 address in disguise
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether the address is a single host's in the public internet."""
    if isinstance(address, IPv4Address):
        refused = any(address in network for network in REFUSED_IPV4)
    else:
        refused = address not in PUBLIC_IPV6 or any(address in network for network in REFUSED_IPV6)
    return address.is_global and not refused
