"""The list of API keys."""

import hashlib
from pathlib import Path

import pytest

from gateway.access.keys import ApiKey, KeyRing, read_keys
from gateway.access.policy import AccessSettingsError

ALICE = hashlib.sha256(b"alice's key").hexdigest()
BOB = hashlib.sha256(b"bob's key").hexdigest()


def test_entries_are_read_from_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# team\n\n  bob\t{BOB.upper()}   token_quota=5  requests_per_minute=7\n")
    assert read_keys(f"alice {ALICE}; carol {'0' * 64}", file) == [
        ApiKey("alice", bytes.fromhex(ALICE)),
        ApiKey("carol", bytes(32)),
        ApiKey("bob", bytes.fromhex(BOB), requests_per_minute=7, token_quota=5),
    ]


def test_no_list_has_no_keys() -> None:
    assert read_keys("", None) == []


@pytest.mark.parametrize(
    "text",
    [
        "alice",
        f"alice:{ALICE}",
        f"alice {ALICE[:-1]}",
        f"alice {ALICE[:-1]}g",
        f"al/ice {ALICE}",
        "alice alices-plain-key",
        f"alice {ALICE} requests_per_minute",
        f"alice {ALICE} requests_per_minute=0",
        f"alice {ALICE} requests_per_minute=-1",
        f"alice {ALICE} requests_per_minute=1.5",
        f"alice {ALICE} requests_per_minute=٣",
        f"alice {ALICE} token_quota=1 token_quota=2",
        f"alice {ALICE} sha256=1",
        f"alice {ALICE};alice {BOB}",
        f"alice {ALICE};bob {ALICE}",
    ],
)
def test_malformed_entries_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(AccessSettingsError) as caught:
        read_keys(text, None)
    message = str(caught.value)
    assert ALICE[:8] not in message
    assert "alices-plain-key" not in message


@pytest.mark.parametrize("content", [b"", b"# nobody\n", b"\xff\xfe", None])
def test_file_without_keys_does_not_open_the_service(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AccessSettingsError):
        read_keys("", file)


def test_key_is_found_by_its_sum_alone() -> None:
    ring = KeyRing(read_keys(f"alice {ALICE};bob {BOB}", None))
    for secret, name in ((b"alice's key", "alice"), (b"bob's key", "bob")):
        key = ring.find(secret)
        assert key is not None
        assert key.name == name
    for wrong in (b"", b"alice's ke", b"alice's key ", ALICE.encode(), bytes.fromhex(ALICE)):
        assert ring.find(wrong) is None
