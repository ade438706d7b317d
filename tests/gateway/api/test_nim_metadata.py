"""What the server reports about itself and its models."""

import hashlib
from dataclasses import replace

import httpx
import pytest

from gateway.version import package_version
from tests.gateway.fake_engine import IMAGE_MODEL, TEXT_MODEL, FakeEngine

MANIFEST = {
    "source": "nvidia/llama-nemotron-embed-vl-1b-v2",
    "revision": "abc",
    "architecture": "llama_nemotron_vl",
    "pooling": "mean",
    "license_text": "Do as you like.",
    "created": 1779146207,
    "preprocessing": {"max_tiles": 6},
    "files": [{"path": "a/1/model.onnx", "bytes": 7, "sha256": "00"}, {"path": "b", "bytes": 5, "sha256": "11"}],
}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(served=(replace(IMAGE_MODEL, license="Apache-2.0", fingerprint="f00", manifest=MANIFEST),))


async def test_version_has_release_and_api(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/version")).json() == {"release": package_version(), "api": "1.0.0"}


async def test_metadata_comes_from_the_manifest(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/metadata")).json()
    assert answer["version"] == package_version()
    assert answer["modelInfo"] == [{"shortName": IMAGE_MODEL.public_id, "modelUrl": MANIFEST["source"]}]
    (model,) = answer["models"]
    assert (model["revision"], model["precision"], model["fingerprint"], model["bytes"]) == ("abc", "fp32", "f00", 12)
    assert (model["max_tokens"], model["preprocessing"]) == (10240, {"max_tiles": 6})


async def test_metadata_of_one_model_is_that_models(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.served = (*engine.served, TEXT_MODEL)
    everything = (await client.get("/v1/metadata")).json()
    assert len(everything["models"]) == 2
    for model in everything["models"]:
        shown = (await client.get("/v1/metadata", params={"model": model["id"]})).json()
        assert shown["models"] == [model]
        assert [info["shortName"] for info in shown["modelInfo"]] == [model["id"]]
    unknown = await client.get("/v1/metadata", params={"model": "no/such"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")
    twice = await client.get(f"/v1/metadata?model={TEXT_MODEL.public_id}&model={TEXT_MODEL.public_id}")
    assert (twice.status_code, twice.json()["message"]) == (400, "model must be given once")


async def test_details_link_of_a_listed_model_leads_to_that_model(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.served = (*engine.served, TEXT_MODEL, replace(TEXT_MODEL, public_id="a/b&c=d"))
    listed = (await client.get("/api/v1/models")).json()["data"]
    assert len(listed) == 3
    for model in listed:
        shown = (await client.get(model["links"]["details"])).json()["models"]
        assert [entry["id"] for entry in shown] == [model["id"]]


async def test_manifest_shows_files_with_sizes_and_sums(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/manifest")).json()
    assert answer == {"object": "list", "data": [{"public_id": IMAGE_MODEL.public_id, **MANIFEST}]}


async def test_license_carries_its_text_and_sum(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/license")).json()
    assert (answer["name"], answer["content"], answer["size"]) == ("Apache-2.0", "Do as you like.", 15)
    assert answer["sha"] == hashlib.sha256(b"Do as you like.").hexdigest()
    assert len(answer["licenses"]) == 1


async def test_list_of_models_has_created_and_owner(client: httpx.AsyncClient) -> None:
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert (model["created"], model["owned_by"]) == (1779146207, "nvidia")


@pytest.mark.parametrize("path", ["/v1/metadata", "/v1/manifest", "/v1/license", "/v1/models"])
async def test_unreachable_engine_returns_503(client: httpx.AsyncClient, engine: FakeEngine, path: str) -> None:
    engine.available = False
    assert (await client.get(path)).status_code == 503
