import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.goals import GOALS
from bench.report import Report
from bench.settings import PROJECT

# Items per request and clients of a quick run.
GRID = [(items, clients) for items in (1, 4) for clients in (1, 4)]


def run_bench(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "bench", *words], cwd=PROJECT, capture_output=True, text=True)


def test_unknown_section_is_refused_with_the_known_ones_named() -> None:
    finished = run_bench("warp-speed")
    assert finished.returncode == 2
    assert "no section warp-speed; there are throughput, " in finished.stderr


def test_a_quick_run_may_not_be_documented() -> None:
    finished = run_bench("--quick", "--document")
    assert finished.returncode == 2
    assert "--document cannot be combined with --quick" in finished.stderr


@pytest.fixture(scope="module")
def results_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed")
    build_dir = tmp_path_factory.mktemp("bench")
    finished = run_bench("throughput", "interference", "--quick", "--build-dir", str(build_dir))
    assert finished.returncode == 0, finished.stderr
    assert "| gateway ÷ engine limit, 32 items per request" in finished.stdout
    return build_dir / "results.json"


@pytest.mark.slow
@pytest.mark.triton
def test_quick_run_measures_every_contender_under_every_load(results_path: Path) -> None:
    values: dict[str, Any] = json.loads(results_path.read_text())
    assert {"started", "machine", "versions", "settings", "results", "goals"} == values.keys()
    assert [goal["goal"] for goal in values["goals"]] == [goal.measure for goal in GOALS]
    report = Report.read(results_path)
    measured = {
        (each.section, each.contender, each.load.items_per_request, each.load.concurrency) for each in report.results
    }
    grid = {("throughput", name, *load) for name in ("engine", "gateway") for load in GRID}
    assert measured == grid | {("interference", name, 1, 1) for name in ("texts alone", "texts beside pages")}
    for each in report.results:
        assert len(each.samples) == 2
        assert all(sample.items_per_s > 0 and sample.errors == 0 for sample in each.samples)


@pytest.mark.slow
@pytest.mark.triton
def test_cpu_time_is_reported_by_process(results_path: Path) -> None:
    gateways = [each for each in Report.read(results_path).results if each.contender == "gateway"]
    assert len(gateways) == len(GRID)
    for each in gateways:
        assert each.cpu_us_per_item("embedder") > each.cpu_us_per_item("gateway") > 0
        for sample in each.samples:
            assert {"embedder", "preprocess_text", "triton", "gateway", "launcher"} <= sample.cpu_us_per_item.keys()
