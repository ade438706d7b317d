"""Run the page's code in the environment of a client."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.clients.page import Block
from tests.end_to_end.node_packages import install as install_node_packages
from tests.end_to_end.samples import MINILM

NODE_PACKAGES = Path(__file__).parent / "node"
RUN_SOURCES = Path(__file__).parent / "run_sources.py"
RUN_TIMEOUT_S = 300
SERVER_OF_THE_PAGE = "http://127.0.0.1:8000"
ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise fetched from the internet, with retries
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "NVIDIA_API_KEY": "none",
}

Result = dict[str, Any]
"""What a source assigned to `vectors`, `query` and `models`, or `error` and `message`."""


def write_source(block: Block, url: str, model: str = MINILM) -> str:
    """Return the block's code for another server and model."""
    return block.source.replace(SERVER_OF_THE_PAGE, url).replace(MINILM, model)


def run_python(environment: Path, sources: Sequence[str], **variables: str) -> list[Result]:
    """Execute Python sources one after the other in one process of a virtual environment."""
    command = [str(environment / "bin" / "python"), "-I", str(RUN_SOURCES)]
    result = subprocess.run(
        command,
        input=json.dumps(sources),
        env=os.environ | ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout.splitlines()[-1]))


def run_typescript(sources: Sequence[str]) -> list[Result]:
    """Execute TypeScript sources, each in its own process."""
    folder = install_node_packages(NODE_PACKAGES)
    return [run_typescript_source(folder, source) for source in sources]


def run_typescript_source(folder: Path, source: str) -> Result:
    script = folder / "source.ts"
    script.write_text(f"{source}\nconsole.log(JSON.stringify({{ vectors, query }}));\n")
    command = [str(folder / "node_modules" / ".bin" / "tsx"), script.name]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    if result.returncode != 0:
        return {"error": "Error", "message": result.stderr}
    return dict(json.loads(result.stdout.splitlines()[-1]))
