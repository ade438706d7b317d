"""Settings that have a form of their own, read from the environment."""

import pytest
from pydantic import ValidationError

from gateway.settings import Settings


@pytest.mark.parametrize(
    ("text", "aliases"),
    [
        ("", {}),
        ("small=a/b", {"small": "a/b"}),
        (" small = a/b, google/x=a/c ,", {"small": "a/b", "google/x": "a/c"}),
        ('{"small": "a/b=c"}', {"small": "a/b=c"}),
        ("{}", {}),
    ],
)
def test_aliases_are_pairs_or_json(monkeypatch: pytest.MonkeyPatch, text: str, aliases: dict[str, str]) -> None:
    monkeypatch.setenv("GATEWAY_MODEL_ALIASES", text)
    assert Settings().model_aliases == aliases


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("small", "must be a JSON object, or alias=model pairs"),
        ("small=a=b", "must be a JSON object, or alias=model pairs"),
        ("{small: a}", "must be a JSON object, or alias=model pairs"),
        ('["small"]', "must be a JSON object, or alias=model pairs"),
        ('{"small": 5}', "should be a valid string"),
        ("small=", "must not be empty"),
        ("small=a/b,small=a/c", "an alias is given twice"),
        ('{"small": "a/b", "small": "a/b"}', "an alias is given twice"),
        ("small=small", "'small' must stand for a model, and 'small' is an alias"),
        ("small=tiny,tiny=a/b", "'small' must stand for a model, and 'tiny' is an alias"),
    ],
)
def test_malformed_aliases_are_refused_at_start(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.setenv("GATEWAY_MODEL_ALIASES", text)
    with pytest.raises(ValidationError, match="model_aliases") as wrong:
        Settings()
    assert reason in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://App.example.com, http://localhost:3000", ("https://app.example.com", "http://localhost:3000")),
    ],
)
def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, text: str, origins: tuple[str, ...]) -> None:
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", text)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize("text", ["app.example.com", "https://app.example.com/", "https://a.example/path", "https://"])
def test_malformed_origins_are_refused_at_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", text)
    with pytest.raises(ValidationError, match="without a path"):
        Settings()


@pytest.mark.parametrize(("text", "count"), [("", 0), ("10.0.0.1", 1), ("10.0.0.0/8, ::1 2001:db8::/32", 3)])
def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch, text: str, count: int) -> None:
    monkeypatch.setenv("GATEWAY_TRUSTED_PROXIES", text)
    assert len(Settings().trusted_proxies) == count


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_malformed_trusted_proxies_are_refused_at_start(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GATEWAY_TRUSTED_PROXIES", text)
    with pytest.raises(ValidationError, match="must be an IP address, or a network"):
        Settings()
