"""Engines are built, published and rebuilt: with a stand-in for trtexec, which writes its arguments as the engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service import PROJECT

TRTEXEC = """#!{python}
import os, pathlib, sys
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # " + " ".join(sys.argv))
if "--help" in sys.argv:
    sys.exit(0)
if os.environ.get("BROKEN"):
    print("[E] Error[4]: no kernel for TRT_Attention")
    print("&&&& FAILED TensorRT.trtexec")
    sys.exit(1)
options = [argument.partition("=") for argument in sys.argv[1:]]
[engine] = [value for option, _, value in options if option == "--saveEngine"]
pathlib.Path(engine).write_text("\\n".join(sys.argv[1:]))
"""
NVIDIA_SMI = "#!{python}\nprint('{gpu}, 9.0')\n"
PROFILES = {
    "queries": {"input_ids": {"min": 1, "opt": 32, "max": 512}, "sequence_lengths": {"min": 1, "opt": 2, "max": 64}},
    "passages": {
        "input_ids": {"min": 1, "opt": 8192, "max": 16384},
        "sequence_lengths": {"min": 1, "opt": 16, "max": 99},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The version folder of a graph for TensorRT, in a repository with another model."""
    folder = tmp_path / "repository" / "m_embedder" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(b"weights")
    (folder / "profiles.json").write_text(json.dumps(PROFILES))
    (tmp_path / "repository" / "m_text" / "1").mkdir(parents=True)
    return folder


@pytest.fixture
def build(tmp_path: Path, folder: Path):
    """Run the script as its container does, by a Python without this project."""

    def run(
        *options: str, version: str = "110000", gpu: str = "NVIDIA H100 80GB HBM3", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        tools = {"trtexec": TRTEXEC.replace("{version}", version), "nvidia-smi": NVIDIA_SMI.replace("{gpu}", gpu)}
        for name, source in tools.items():
            (tmp_path / name).write_text(source.replace("{python}", sys.executable))
            (tmp_path / name).chmod(0o755)
        script = str(PROJECT / "deploy" / "build_engines.py")
        command = [sys.executable, "-I", script, str(folder.parents[1]), *options]
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        return subprocess.run(command, env=os.environ | path | environment, capture_output=True, text=True, check=False)

    return run


def test_an_engine_has_every_profile_and_says_for_which_machine_it_is(build, folder):
    done = build()
    assert done.returncode == 0, done.stderr
    assert "1/1 m_embedder: building an engine for NVIDIA H100 80GB HBM3 with TensorRT 110000" in done.stderr
    options = (folder / "model.plan").read_text().splitlines()
    assert f"--onnx={folder / 'model.onnx'}" in options
    assert options[-8:] == [
        "--profile=0",
        "--minShapes=input_ids:1,sequence_lengths:1",
        "--optShapes=input_ids:32,sequence_lengths:2",
        "--maxShapes=input_ids:512,sequence_lengths:64",
        "--profile=1",
        "--minShapes=input_ids:1,sequence_lengths:1",
        "--optShapes=input_ids:8192,sequence_lengths:16",
        "--maxShapes=input_ids:16384,sequence_lengths:99",
    ]
    record = json.loads((folder / "engine.json").read_text())
    assert (record["gpu"], record["compute_capability"]) == ("NVIDIA H100 80GB HBM3", "9.0")
    assert record["tensorrt"] == "110000"
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx", "model.onnx.data", "profiles.json", "model.plan", "engine.json",
    }  # fmt: skip


def test_an_engine_that_is_up_to_date_is_kept(build, folder):
    build()
    (folder / "model.plan").write_text("kept")
    assert "1/1 m_embedder: the engine is up to date" in build().stderr
    assert (folder / "model.plan").read_text() == "kept"
    assert "building" in build("--force").stderr


@pytest.mark.parametrize("change", ["gpu", "version", "graph", "weights", "profiles", "record", "engine"])
def test_an_engine_for_another_machine_or_graph_is_built_again(build, folder, change):
    build()
    (folder / "model.plan").write_text("old")
    files = {"graph": "model.onnx", "weights": "model.onnx.data", "record": "engine.json"}
    if change in files:
        (folder / files[change]).write_bytes(b"other")
    elif change == "profiles":
        (folder / "profiles.json").write_text(json.dumps({"queries": PROFILES["queries"]}))
    elif change == "engine":
        (folder / "model.plan").unlink()
    other = {"gpu": {"gpu": "NVIDIA L4"}, "version": {"version": "110100"}}.get(change, {})
    done = build(**other)
    assert done.returncode == 0, done.stderr
    assert (folder / "model.plan").read_text() != "old"
    assert "up to date" in build(**other).stderr


def test_a_failed_build_keeps_the_old_engine_and_says_why(build, folder):
    build()
    before = (folder / "model.plan").read_text()
    done = build("--force", BROKEN="1")
    assert done.returncode == 1
    assert "error: trtexec failed with status 1: [E] Error[4]: no kernel for TRT_Attention" in done.stderr
    assert (folder / "model.plan").read_text() == before
    assert not (folder / ".model.plan.unfinished").exists()
    assert (folder / ".model.plan.log").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--trtexec", "no-such-trtexec"), "no-such-trtexec cannot be run: no TensorRT: run this in nvcr.io"),
        (("--nvidia-smi", "no-such-smi"), "no-such-smi cannot be run: no GPU driver"),
        (("--nvidia-smi", "true"), "true lists no GPU"),
        (("--trtexec", "true"), "true does not say which version of TensorRT it is"),
    ],
)
def test_a_machine_without_the_tools_is_refused_in_one_line(build, options, message):
    done = build(*options)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_repository_without_graphs_for_tensorrt_is_refused(build, folder):
    (folder / "profiles.json").unlink()
    done = build()
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "export one with --target tensorrt" in done.stderr
