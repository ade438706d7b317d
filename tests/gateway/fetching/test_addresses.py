"""Which addresses count as public."""

from ipaddress import ip_address

import pytest

from gateway.fetching.addresses import is_public
from tests.gateway.fetching.refused import ADDRESSES


@pytest.mark.parametrize("address", ADDRESSES)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "93.184.215.14", "168.63.129.15", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))
