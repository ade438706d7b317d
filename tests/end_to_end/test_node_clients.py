"""OpenAI's and OpenRouter's unmodified clients for Node."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.end_to_end.node_packages import install, run_script
from tests.end_to_end.samples import IMAGE_URL, MINILM, TINY
from tests.service import Service

pytestmark = pytest.mark.triton

SCRIPTS = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def openai_output(service: Service) -> dict[str, Any]:
    environment = {"TESSERA_URL": service.http_url, "TESSERA_MODEL": MINILM}
    return dict(json.loads(run_script(install(SCRIPTS), "openai.ts", **environment)))


@pytest.fixture(scope="module")
def openrouter_output(service: Service) -> dict[str, Any]:
    environment = {"TESSERA_URL": service.http_url, "TESSERA_MODEL": TINY, "IMAGE_URL": IMAGE_URL}
    return dict(json.loads(run_script(install(SCRIPTS), "openrouter.ts", **environment)))


def vectors(entries: list[dict[str, Any]]) -> npt.NDArray[np.float32]:
    return np.array([entry["embedding"] for entry in entries], np.float32)


def test_openai_decodes_its_default_base64(openai_output: dict[str, Any]) -> None:
    as_is = vectors(openai_output["asIs"])
    assert as_is.shape == (2, 384)
    np.testing.assert_array_equal(as_is, vectors(openai_output["float"]))
    decoded = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in openai_output["base64"]]
    np.testing.assert_array_equal(as_is, decoded)


def test_openai_cuts_dimensions(openai_output: dict[str, Any]) -> None:
    cut, whole = vectors(openai_output["cut"]), vectors(openai_output["asIs"])[:, :64]
    np.testing.assert_allclose(cut, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-6)


def test_openai_sends_token_arrays(openai_output: dict[str, Any]) -> None:
    hello, empty = vectors(openai_output["tokens"])
    np.testing.assert_allclose(hello, vectors(openai_output["asIs"])[0], atol=1e-5)
    assert hello @ empty < 0.9


def test_openai_raises_its_own_errors(openai_output: dict[str, Any]) -> None:
    unknown, blank, wide = (openai_output[case] for case in ("unknownModel", "blank", "tooWide"))
    assert (unknown["class"], unknown["status"], unknown["param"]) == ("NotFoundError", 404, "model")
    assert "model 'wrong-model' not found" in unknown["message"]
    assert (blank["class"], blank["param"], blank["code"]) == ("BadRequestError", "input[0]", 400)
    assert (wide["class"], wide["param"]) == ("BadRequestError", "dimensions")
    assert {error["type"] for error in (blank, wide)} == {"invalid_request_error"}
    assert len({error["requestId"] for error in (unknown, blank, wide)}) == 3


def test_openai_lists_models(openai_output: dict[str, Any]) -> None:
    assert openai_output["models"] == [TINY, MINILM]


def test_openrouter_parses_responses(openrouter_output: dict[str, Any]) -> None:
    text, blocks = openrouter_output["text"], openrouter_output["blocks"]
    assert text["id"] and text["usage"]["cost"] == 0
    assert vectors(text["data"]).shape == (1, 96)
    assert vectors(blocks["data"]).shape == (2, 96)
    assert blocks["usage"]["promptTokensDetails"]["imageTokens"] == 2 * 256
    [entry] = openrouter_output["options"]["data"]
    assert len(base64.b64decode(entry["embedding"])) == 48 * 4
    assert openrouter_output["preferences"]["data"] == text["data"]


def test_openrouter_raises_its_own_errors(openrouter_output: dict[str, Any]) -> None:
    names = {case: openrouter_output[case]["class"] for case in ("unknownModel", "blank", "otherProvider")}
    assert names == {
        "unknownModel": "NotFoundResponseError",
        "blank": "BadRequestResponseError",
        "otherProvider": "NotFoundResponseError",
    }
    assert openrouter_output["blank"]["message"] == "input[0] must not be blank or empty"


def test_openrouter_lists_models(openrouter_output: dict[str, Any]) -> None:
    assert openrouter_output["models"] == [TINY, MINILM]
