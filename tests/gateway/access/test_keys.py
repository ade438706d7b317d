"""How API keys are configured."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.access.keys import AccessSettingsError, ApiKey, KeyEntry, KeyRing, read_keys
from gateway.access.limits import group_address

ALICE = hashlib.sha256(b"alice's key").hexdigest()
BOB = hashlib.sha256(b"bob's key").hexdigest()


def test_entries_are_read_from_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'# team\n[keys.bob]\nsha256 = "{BOB.upper()}"\nrequests_per_minute = 7\ntoken_quota = 5\n')
    inline = json.dumps({"alice": {"sha256": ALICE}, "carol@example.com": {"sha256": "0" * 64}})
    assert read_keys(inline, file) == [
        ApiKey("alice", KeyEntry(ALICE)),
        ApiKey("carol@example.com", KeyEntry("0" * 64)),
        ApiKey("bob", KeyEntry(BOB.upper(), requests_per_minute=7, token_quota=5)),
    ]


def test_without_entries_there_are_no_keys() -> None:
    assert read_keys("", None) == []


ENTRY: dict[str, Any] = {"sha256": ALICE}


@pytest.mark.parametrize(
    "entries",
    [
        {"alice": {}},
        {"alice": ALICE},
        {"alice": None},
        {"alice": {"sha256": ALICE[:-1]}},
        {"alice": {"sha256": ALICE[:-1] + "g"}},
        {"alice": {"sha256": ALICE + "\n"}},
        {"alice": {"sha256": "alices-plain-key"}},
        {"al/ice": ENTRY},
        {"": ENTRY},
        {"alice": ENTRY | {"requests_per_minute": None, "key": "alices-plain-key"}},
        {"alice": ENTRY | {"requests_per_minute": 0}},
        {"alice": ENTRY | {"requests_per_minute": -1}},
        {"alice": ENTRY | {"requests_per_minute": 1.5}},
        {"alice": ENTRY | {"requests_per_minute": "7"}},
        {"alice": ENTRY | {"token_quota": 10**18}},
        {"alice": ENTRY, "bob": ENTRY},
        ["alice"],
        f"alice {ALICE}",
    ],
)
def test_malformed_entries_are_refused_without_repeating_them(entries: Any) -> None:
    with pytest.raises(AccessSettingsError) as caught:
        read_keys(json.dumps(entries), None)
    assert ALICE[:8] not in str(caught.value)
    assert "alices-plain-key" not in str(caught.value)


def test_old_list_format_is_refused_with_an_example_of_the_new_one() -> None:
    with pytest.raises(AccessSettingsError, match="API_KEYS: write JSON"):
        read_keys(f"alice {ALICE}; bob {BOB}", None)


def test_error_names_the_source_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[keys.bob]\nsha256 = "{BOB}"\nrequests = 7\n')
    with pytest.raises(AccessSettingsError, match=r"keys\.toml: key bob: .*`requests`"):
        read_keys("", file)


def test_a_name_or_key_in_both_sources_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[keys.alice]\nsha256 = "{BOB}"\n')
    with pytest.raises(AccessSettingsError, match="same name"):
        read_keys(json.dumps({"alice": ENTRY}), file)


@pytest.mark.parametrize(
    "content", [b"", b"# no keys\n", b"[keys]\n", b"keys = 7\n", b"[key.bob]\n", b"\xff\xfe", b"bob = ", None]
)
def test_file_without_keys_does_not_open_the_service(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AccessSettingsError):
        read_keys("", file)


def test_key_is_found_by_its_hash_alone() -> None:
    ring = KeyRing(read_keys(json.dumps({"alice": {"sha256": ALICE}, "bob": {"sha256": BOB}}), None))
    for secret, name in ((b"alice's key", "alice"), (b"bob's key", "bob")):
        key = ring.find(secret)
        assert key is not None
        assert key.name == name
    for wrong in (b"", b"alice's ke", b"alice's key ", ALICE.encode(), bytes.fromhex(ALICE)):
        assert ring.find(wrong) is None


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2600:1:2:3:4::5", "2600:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_address_is_counted_with_those_that_one_client_may_have(address: str, group: str) -> None:
    assert group_address(address) == group
