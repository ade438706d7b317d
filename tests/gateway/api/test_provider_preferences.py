"""OpenRouter's provider preferences over HTTP: each is honoured or refused."""

from dataclasses import replace
from typing import Any

import httpx
import msgspec
import pytest

from gateway.api.provider_preferences import EXPECTED, ProviderPreferences
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine

EXCLUDED = "no allowed providers are available for the selected model"

PUBLISHED_FIELDS = """allow_fallbacks data_collection enforce_distillable_text ignore max_price only options order
    preferred_max_latency preferred_min_throughput quantizations require_parameters sort zdr""".split()
"""Those of `ProviderPreferences` in OpenRouter's Python SDK 1.3.84."""


async def post(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/api/v1/embeddings", json={"model": IMAGE_MODEL.public_id, "input": "a", **body})


@pytest.mark.parametrize(
    "provider",
    [
        None,
        {},
        {"only": []},
        {"only": ["Tessera"]},
        {"order": ["openai", "tessera"]},
        {"order": ["openai", "azure"], "allow_fallbacks": True, "data_collection": "deny"},
        {"ignore": ["openai"]},
        {"data_collection": "deny"},
        {"data_collection": "allow", "zdr": True},
        {"zdr": False, "enforce_distillable_text": False, "require_parameters": False},
        {"require_parameters": True},
        {"quantizations": ["int8", "FP32"]},
        {"quantizations": []},
        {"max_price": {"prompt": 0, "completion": "1.50", "image": 0.1, "request": "0", "audio": None}},
        {"sort": "price"},
        {"sort": {"by": "throughput", "partition": "none"}},
        {"sort": {"by": None}},
        {"preferred_min_throughput": 100, "preferred_max_latency": {"p50": 0.5, "p99": 3}},
        {"options": {"openai": {"anything": 1}, "tessera": {}}},
        dict.fromkeys(PUBLISHED_FIELDS),
    ],
)
async def test_preferences_that_this_server_satisfies_are_accepted(
    client: httpx.AsyncClient, provider: dict[str, Any] | None
) -> None:
    assert (await post(client, provider=provider)).status_code == 200


@pytest.mark.parametrize(
    ("provider", "field"),
    [
        ({"only": ["openai"]}, "only"),
        ({"only": ["openai"], "allow_fallbacks": True}, "only"),
        ({"order": ["openai", "azure"]}, "order"),
        ({"order": ["openai", "azure"], "allow_fallbacks": False}, "order"),
        ({"order": ["openai", "azure"], "allow_fallbacks": None}, "order"),
        ({"ignore": ["openai", "TESSERA"]}, "ignore"),
        ({"only": ["tessera"], "ignore": ["tessera"]}, "ignore"),
        ({"quantizations": ["int8", "unknown"]}, "quantizations"),
    ],
)
async def test_preferences_that_exclude_this_server_get_404(
    client: httpx.AsyncClient, engine: FakeEngine, provider: dict[str, Any], field: str
) -> None:
    response = await post(client, provider=provider)
    assert (response.status_code, response.json()["message"]) == (404, EXCLUDED)
    assert response.json()["error"]["param"] == f"provider.{field}"
    assert not engine.batches


async def test_quantizations_are_compared_with_the_models_own_precision(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.served = (IMAGE_MODEL, replace(TEXT_MODEL, precision="int8"))
    provider = {"quantizations": ["int8"]}
    assert (await post(client, provider=provider)).status_code == 404
    assert (await post(client, provider=provider, model=TEXT_MODEL.public_id + ":free")).status_code == 200
    unknown = await post(client, provider=provider, model="no/such")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    "parameter", [{"temperature": 0}, {"top_p": 1}, {"seed": 1}, {"max_tokens": 5}, {"response_format": {}}]
)
async def test_required_parameters_that_are_ignored_here_get_404(
    client: httpx.AsyncClient, parameter: dict[str, Any]
) -> None:
    response = await post(client, provider={"require_parameters": True}, **parameter)
    assert (response.status_code, response.json()["error"]["param"]) == (404, "provider.require_parameters")
    assert (await post(client, provider={"require_parameters": False}, **parameter)).status_code == 200
    absent = dict.fromkeys(parameter)
    assert (await post(client, provider={"require_parameters": True}, session_id="s", **absent)).status_code == 200


@pytest.mark.parametrize(
    ("provider", "param", "reason"),
    [
        ("openai", "provider", "must be an object"),
        ({"only": "openai"}, "provider.only", "must be an array of strings"),
        ({"order": [1]}, "provider.order", "must be an array of strings"),
        ({"order": {}}, "provider.order", "must be an array of strings"),
        ({"ignore": ["a", None]}, "provider.ignore", "must be an array of strings"),
        ({"quantizations": "fp16"}, "provider.quantizations", "must be an array of strings"),
        ({"allow_fallbacks": "true"}, "provider.allow_fallbacks", "must be true or false"),
        ({"require_parameters": 1}, "provider.require_parameters", "must be true or false"),
        ({"zdr": 1}, "provider.zdr", "must be true or false"),
        ({"data_collection": "none"}, "provider.data_collection", "must be 'allow' or 'deny'"),
        ({"sort": "beauty"}, "provider.sort", "must be 'price', 'throughput', 'latency' or 'exacto', or an object"),
        ({"sort": {"by": "beauty"}}, "provider.sort.by", "must be 'price', 'throughput', 'latency' or 'exacto'"),
        ({"sort": {"partition": 5}}, "provider.sort.partition", "must be 'model' or 'none'"),
        ({"max_price": 5}, "provider.max_price", "must be an object of prices"),
        ({"max_price": {"prompt": "free"}}, "provider.max_price.prompt", "must be a number from 0"),
        ({"max_price": {"prompt": -1}}, "provider.max_price.prompt", "must be a number from 0"),
        ({"preferred_max_latency": -1}, "provider.preferred_max_latency", "must be a number from 0, or an object"),
        ({"preferred_min_throughput": {"p50": "a"}}, "provider.preferred_min_throughput.p50", "must be a number"),
        ({"options": []}, "provider.options", "must be an object"),
        ({"options": {"openai": 5}}, "provider.options", "must be an object"),
        ({"options": {"Tessera": {"a": 1}}}, "provider.options.tessera", "must be empty"),
        ({"enforce_distillable_text": True}, "provider.enforce_distillable_text", "is not supported"),
    ],
)
async def test_wrong_or_unsupported_preferences_get_400_that_names_them(
    client: httpx.AsyncClient, engine: FakeEngine, provider: object, param: str, reason: str
) -> None:
    response = await post(client, provider=provider)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert response.json()["message"].startswith(f"{param} {reason}")
    assert not engine.batches


@pytest.mark.parametrize(
    ("provider", "param"),
    [
        ({"bogus": 1}, "provider.bogus"),
        ({"max_price": {"bogus": 1}}, "provider.max_price.bogus"),
        ({"sort": {"bogus": 1}}, "provider.sort.bogus"),
        ({"preferred_max_latency": {"p100": 1}}, "provider.preferred_max_latency.p100"),
    ],
)
async def test_unknown_preferences_are_refused_by_name(
    client: httpx.AsyncClient, provider: dict[str, Any], param: str
) -> None:
    response = await post(client, provider=provider)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert response.json()["message"] == f"unknown field '{param}'"


async def test_names_of_unknown_preferences_are_echoed_only_if_they_are_identifiers(client: httpx.AsyncClient) -> None:
    response = await post(client, provider={"my secret words": 1})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "provider")
    assert "secret" not in response.text


def test_every_published_preference_is_known_and_described() -> None:
    fields = [field.name for field in msgspec.structs.fields(ProviderPreferences)]
    assert sorted(fields) == sorted(PUBLISHED_FIELDS)
    assert {f"provider.{field}" for field in fields} <= EXPECTED.keys()
