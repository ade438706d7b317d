"""Every script in examples/, run as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.node_packages import install, run_script
from tests.end_to_end.samples import IMAGE_URL, MINILM, RERANKER, TINY
from tests.service import PROJECT, Service

pytestmark = pytest.mark.triton

EXAMPLES = PROJECT / "examples"

NUMBER = r"-?\d+(\.\d+)?(e-\d+)?"
COUNTS = r'"usage":\{"prompt_tokens":\d+,"total_tokens":\d+,.*\}'
MODELS = r'\{"object":"list","data":\[\{"id":"[^"]+","object":"model","created":\d+,"owned_by":"[^"]+"\}.*\]\}'
OPENROUTER_MODELS = rf'\{{"data":\[\{{"id":"{TINY}",.*"context_length":10240,.*\}}'
DIMENSIONS = r"Embedding dimension: {}"
BATCH = "\n".join(f"Embedding {index}: 384 dimensions" for index in range(3))
RANKING = r"Search results:\n1\. Dogs .*\n2\. The cat .*\n(\d\. .* \(similarity: \d\.\d{4}\)\n?){3}"
RESULT = rf'\{{"index":\d,"relevance_score":{NUMBER}\}}'


def vectors(sizes: list[int], number: str = NUMBER) -> str:
    """Return a pattern for the published response, with one vector of each of these sizes."""
    entries = [
        rf'\{{"object":"embedding","index":{index},"embedding":\[{number}(,{number}){{{size - 1}}}\]\}}'
        for index, size in enumerate(sizes)
    ]
    return rf'\{{"object":"list","data":\[{",".join(entries)}\],"model":"[^"]+",{COUNTS}'


# The whole output of each example, as a pattern.
OUTPUT = {
    "curl/nim/list_models.sh": MODELS,
    "curl/nim/text_query.sh": vectors([96]),
    "curl/nim/image_document.sh": vectors([96]),
    "curl/nim/int8.sh": vectors([96], number=r"-?\d+"),
    "curl/nim/health_ready.sh": r'\{"object":"health.response","message":"ready","ready":true\}',
    "curl/nim/health_live.sh": r'\{"object":"health.response","message":"live","live":true\}',
    "curl/openrouter/basic.sh": vectors([384]),
    "curl/openrouter/batch.sh": vectors([384, 384, 384]),
    "curl/openrouter/image_url.sh": vectors([96]),
    "curl/openrouter/text_and_image.sh": vectors([96]),
    "curl/openrouter/list_models.sh": OPENROUTER_MODELS,
    "curl/rerank.sh": rf'\{{"id":"[^"]+","model":"{RERANKER}","results":\[({RESULT},?){{2}}\],.*\}}',
    "python/basic.py": DIMENSIONS.format(384),
    "python/batch.py": BATCH,
    "python/image_url.py": DIMENSIONS.format(96),
    "python/text_and_image.py": DIMENSIONS.format(96),
    "python/list_models.py": f"{TINY}: 10240 tokens\n{MINILM}: 256 tokens",
    "python/semantic_search.py": RANKING,
    "python/openai_client.py": r"(Embedding \d: 384 dimensions\n){2}Query: 64 dimensions, 5 tokens",
    "python/rerank.py": r"(\d\. .+ \(relevance: [01]\.\d{4}\)\n?){3}",
    "python/cross_modal_search.py": rf"(.*\?? {{2}}→ (,? \w+ {NUMBER}){{4}}\n?){{3}}",
    "typescript/fetch/basic.ts": DIMENSIONS.format(384),
    "typescript/fetch/batch.ts": BATCH,
    "typescript/fetch/image_url.ts": DIMENSIONS.format(96),
    "typescript/fetch/text_and_image.ts": DIMENSIONS.format(96),
    "typescript/fetch/list_models.ts": rf"(?s)\[\n  \{{\n    id: '{TINY}',.*\]",
    "typescript/openrouter_sdk/basic.ts": rf"(?s)\[\s+({NUMBER},\s+){{100}}\.\.\. 284 more items\n\]",
    "typescript/openrouter_sdk/batch.ts": BATCH,
    "typescript/openrouter_sdk/list_models.ts": rf"(?s)\[\n.* id: '{TINY}',.*contextLength: 10240,.*\]",
    "typescript/openrouter_sdk/semantic_search.ts": RANKING,
    "typescript/openai_client.ts": r"Embedding 0: 64 dimensions\nEmbedding 1: 64 dimensions",
}


def list_examples(pattern: str) -> list[str]:
    return sorted(
        str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob(pattern) if "node_modules" not in path.parts
    )


def settings(service: Service, example: str) -> dict[str, str]:
    """Return the environment variables of an example."""
    sends_images = any(word in example for word in ("nim/", "image", "cross_modal"))
    return {
        "TESSERA_URL": service.http_url,
        "TESSERA_API_KEY": "any",
        "TESSERA_MODEL": RERANKER if "rerank" in example else TINY if sends_images else MINILM,
        "IMAGE_URL": IMAGE_URL,
    }


def find_service(request: pytest.FixtureRequest, example: str) -> Service:
    """Return the service that has the example's model; no other is started."""
    service: Service = request.getfixturevalue("ranking_service" if "rerank" in example else "service")
    return service


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def check(example: str, printed: str) -> None:
    matches = re.fullmatch(OUTPUT[example], printed.strip()) is not None
    assert matches, printed[-1000:]


def test_every_example_has_an_expected_output() -> None:
    found = [*list_examples("**/*.sh"), *list_examples("**/*.py"), *list_examples("**/*.ts")]
    assert sorted(found) == sorted(OUTPUT)


@pytest.mark.parametrize("example", list_examples("curl/**/*.sh"))
def test_curl_example(request: pytest.FixtureRequest, tmp_path: Path, example: str) -> None:
    service = find_service(request, example)
    check(example, run(["bash", str(EXAMPLES / example)], tmp_path, settings(service, example)))


@pytest.mark.parametrize("example", list_examples("python/*.py"))
def test_python_example(request: pytest.FixtureRequest, tmp_path: Path, example: str) -> None:
    service = find_service(request, example)
    check(example, run([sys.executable, str(EXAMPLES / example)], tmp_path, settings(service, example)))


@pytest.fixture(scope="session")
def typescript_examples() -> Path:
    return install(EXAMPLES / "typescript")


@pytest.mark.parametrize("example", list_examples("typescript/**/*.ts"))
def test_typescript_example(service: Service, typescript_examples: Path, example: str) -> None:
    script = example.removeprefix("typescript/")
    check(example, run_script(typescript_examples, script, **settings(service, example)))


def test_an_image_url_on_a_private_address_is_refused(service: Service, tmp_path: Path) -> None:
    example = "curl/openrouter/image_url.sh"
    environment = settings(service, example) | {"IMAGE_URL": f"{service.http_url}/image.png"}
    printed = run(["bash", str(EXAMPLES / example)], tmp_path, environment)
    assert '"message":"input[0]: the file could not be fetched;' in printed
