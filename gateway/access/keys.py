"""API keys as an operator configures them: a name, the SHA-256 of the key, and its limits."""

import hashlib
import hmac
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")

Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}\\Z")]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, lt=10**18)]


class AccessSettingsError(ValueError):
    """The settings of keys or of the rate store are unusable. The message never holds a key or its hash."""


class KeyEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator writes about one key; a limit that is left out does not apply.

    Attributes:
        sha256: Hash of the key, in hexadecimal; the key itself is not stored.
        requests_per_minute: Requests started.
        tokens_per_minute: Tokens of requests, those in vain included.
        token_quota: The same tokens, in thirty days.
        weight: Of the key's share of the engine while there is more to do than it can; those of all others are 1.
    """

    sha256: Sha256
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    token_quota: Limit | None = None
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0


class ApiKey(msgspec.Struct, frozen=True):
    """A key and the name it has in logs and counters."""

    name: str
    entry: KeyEntry

    @property
    def sha256(self) -> bytes:
        """The hash of the key."""
        return bytes.fromhex(self.entry.sha256)


class KeyRing:
    """All keys of the service."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = [(key.sha256, key) for key in keys]

    def find(self, secret: bytes) -> ApiKey | None:
        """Return the key that a caller presents, or None; takes the same time either way."""
        sha256 = hashlib.sha256(secret).digest()
        found = None
        for key_sha256, key in self._keys:
            if hmac.compare_digest(key_sha256, sha256):
                found = key
        return found


def read_keys(inline: str, path: Path | None) -> list[ApiKey]:
    """Return the keys of the environment and of a file together.

    Args:
        inline: A JSON object of names and entries: `{"alice": {"sha256": "...", "requests_per_minute": 60}}`; or empty.
        path: A TOML file with a table for each key, `[keys.alice]`; or None.

    Returns:
        An empty list if neither is given: then no key is needed.

    Raises:
        AccessSettingsError: An entry is malformed, two have the same name or key, or the file is empty or unreadable.
    """
    keys = parse_entries(parse_json(inline), "API_KEYS") if inline.strip() else []
    if path is not None:
        in_file = parse_entries(read_toml(path), path.name)
        if not in_file:
            raise AccessSettingsError(f"{path.name}: has no [keys.NAME] table")
        keys += in_file
    for what, values in (("name", [key.name for key in keys]), ("key", [key.sha256 for key in keys])):
        if len(set(values)) < len(values):
            raise AccessSettingsError(f"API keys: two entries have the same {what}")
    return keys


def parse_json(text: str) -> Mapping[str, Any]:
    """Return the entries of a JSON object, by name.

    Raises:
        AccessSettingsError: It is not one.
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise AccessSettingsError('API_KEYS: write JSON, such as {"alice": {"sha256": "..."}}') from error


def read_toml(path: Path) -> Mapping[str, Any]:
    """Return the tables below `keys` in a TOML file, by name.

    Raises:
        AccessSettingsError: The file cannot be read, is not TOML, or has anything else in it.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise AccessSettingsError(f"{path.name}: cannot be read") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AccessSettingsError(f"{path.name}: is not a TOML file with a [keys.NAME] table for each key") from error
    keys = content.pop("keys", {})
    if content or not isinstance(keys, dict):
        raise AccessSettingsError(f"{path.name}: must have [keys.NAME] tables only")
    return keys


def parse_entries(entries: Mapping[str, Any], source: str) -> list[ApiKey]:
    """Check the entries of one source.

    Args:
        entries: By name.
        source: Named in errors.

    Raises:
        AccessSettingsError: A name or an entry is malformed.
    """
    keys = []
    for name, fields in entries.items():
        if not NAME.fullmatch(name):
            raise AccessSettingsError(
                f"{source}: a name must be 1 to 64 letters, digits and '_.@-', and begin with a letter or digit"
            )
        try:
            keys.append(ApiKey(name, msgspec.convert(fields, KeyEntry)))
        except msgspec.ValidationError as error:
            if str(error).endswith("`$.sha256`"):
                raise AccessSettingsError(f"{source}: key {name}: sha256 must be 64 hexadecimal digits") from None
            raise AccessSettingsError(f"{source}: key {name}: {error}") from None
    return keys
