"""API keys as an operator lists them: a name, the SHA-256 of the key, and what the key may spend."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.access.policy import AccessSettingsError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
ALLOWANCES = ("requests_per_minute", "tokens_per_minute", "token_quota")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, and its allowances; None where there is no bound.

    Attributes:
        name: in logs and counters.
        sha256: of the key itself, which is kept nowhere.
        requests_per_minute: begun.
        tokens_per_minute: of answered requests.
        token_quota: of answered requests, in thirty days.
    """

    name: str
    sha256: bytes
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    token_quota: int | None = None


class KeyRing:
    """All keys of the service."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        """Keeps the keys.

        Args:
            keys: with names and sums of their own.
        """
        self._keys = tuple(keys)

    def find(self, secret: bytes) -> ApiKey | None:
        """The key that a caller presents, or None; takes as long whichever it is, and however much of it is right."""
        sha256 = hashlib.sha256(secret).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, sha256):
                found = key
        return found


def read_keys(text: str, path: Path | None) -> list[ApiKey]:
    """The keys of the environment and of a file together.

    Args:
        text: entries, separated by semicolons or line ends.
        path: of a file with an entry on each line, or None.

    Returns:
        None at all where neither is given: then nobody needs a key.

    Raises:
        AccessSettingsError: an entry is malformed, two have one name or key, or the file has none or cannot be read.
    """
    keys = parse_keys(text.replace(";", "\n"), "API_KEYS")
    if path is not None:
        try:
            in_file = parse_keys(path.read_text("utf-8"), path.name)
        except (OSError, UnicodeDecodeError) as error:
            raise AccessSettingsError(f"{path.name}: cannot be read") from error
        if not in_file:
            raise AccessSettingsError(f"{path.name}: no key in it")
        keys += in_file
    for what, values in (("name", [key.name for key in keys]), ("key", [key.sha256.hex() for key in keys])):
        if len(set(values)) < len(values):
            raise AccessSettingsError(f"API keys: two entries with the same {what}")
    return keys


def parse_keys(text: str, source: str) -> list[ApiKey]:
    """The entries of a list, one on each line; empty lines and those that begin with `#` do not count.

    Raises:
        AccessSettingsError: an entry is malformed.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            keys.append(parse_key(words))
        except AccessSettingsError as error:
            raise AccessSettingsError(f"{source}, line {number}: {error}") from None
    return keys


def parse_key(words: Sequence[str]) -> ApiKey:
    """One entry: `name sha256 [requests_per_minute=N] [tokens_per_minute=N] [token_quota=N]`.

    Raises:
        AccessSettingsError: it is none.
    """
    if len(words) < 2 or not NAME.fullmatch(words[0]) or not SHA256.fullmatch(words[1]):
        raise AccessSettingsError("write a name, and the SHA-256 of its key as 64 hexadecimal digits")
    allowances: dict[str, int] = {}
    for word in words[2:]:
        name, _, number = word.partition("=")
        if name not in ALLOWANCES or name in allowances or not re.fullmatch(r"[1-9][0-9]{0,17}", number):
            raise AccessSettingsError(
                f"after name and sum, write any of {', '.join(ALLOWANCES)}, each with =N, N above 0"
            )
        allowances[name] = int(number)
    return ApiKey(words[0], bytes.fromhex(words[1]), **allowances)
