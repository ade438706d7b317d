"""The commands in docs/models.md that put an ensemble under load without the gateway."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from bench.errors import InstallError
from bench.load_generators import prepare_perf_analyzer
from tests.service import PROJECT, Service

pytestmark = [pytest.mark.triton, pytest.mark.slow]

BLOCKS = re.findall(r"^```sh\n(.*?)^```", (PROJECT / "docs" / "models.md").read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [block for block in BLOCKS if "perf_analyzer -m" in block]
PUBLISHED_URL = "127.0.0.1:8001"
# The name under which `make serve` serves the tiny checkpoint, and the one that it has here.
STAND_IN, SERVED = "llama_nemotron_embed_vl_image", "tiny_checkpoint_image"
# A short run, however busy the machine is.
QUICK = "--measurement-mode count_windows --measurement-request-count 4 --max-trials 3 --stability-percentage 999"


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return prepare_perf_analyzer(tmp_path_factory.mktemp("perf_analyzer"))
    except InstallError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("command", "model"), list(zip(COMMANDS, ["all_minilm_l6_v2_text", STAND_IN], strict=True)))
def test_published_command_measures_the_ensemble(
    tool: Path, service: Service, tmp_path: Path, command: str, model: str
) -> None:
    assert f"perf_analyzer -m {model} " in command and command.count(PUBLISHED_URL) == 1
    script = command.replace(PUBLISHED_URL, f"{service.grpc_url} {QUICK}").replace(STAND_IN, SERVED)
    script = script.replace("/tmp/", f"{tmp_path}/")
    environment = os.environ | {"LD_LIBRARY_PATH": str(tool), "PATH": f"{tool}:{os.environ['PATH']}"}
    finished = subprocess.run(
        ["bash", "-euc", script], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    [throughput] = re.findall(r"Throughput: ([\d.]+) infer/sec", finished.stdout)
    assert float(throughput) > 0
