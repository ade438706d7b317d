"""Builds the TensorRT engines of a model repository, on the machine that will serve them.

`python3 deploy/build_engines.py REPOSITORY` looks for graphs that were exported with `--target tensorrt`. An engine
fits one model of GPU and one version of TensorRT, so `1/engine.json` beside it says for which it was built, and of
which graph; where that is not so any more, the engine is built again. It is published by a rename once it is complete.

This runs in NVIDIA's TensorRT container, where `trtexec` is and this project is not: it needs Python alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRAPH, ENGINE, PROFILES, RECORD = "model.onnx", "model.plan", "profiles.json", "engine.json"
PROGRESS_S = 30.0

Profile = Mapping[str, Mapping[str, int]]  # input → `min`, `opt` and `max` elements

_VERSION = re.compile(r"\[TensorRT v(\d+)\]")


class EngineError(Exception):
    """An engine cannot be built; the message is one line for a terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build every engine that is missing or for another GPU, and return the exit status."""
    parser = argparse.ArgumentParser(prog="build_engines", description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path, help="Triton model repository that `python -m export` wrote")
    parser.add_argument("--trtexec", default="trtexec", help="TensorRT's command (default: trtexec on PATH)")
    parser.add_argument("--nvidia-smi", default="nvidia-smi", help="the driver's command (default: on PATH)")
    parser.add_argument("--force", action="store_true", help="build engines again that are up to date")
    options = parser.parse_args(arguments)
    try:
        folders = sorted(path.parent for path in options.repository.glob(f"*/*/{PROFILES}"))
        if not folders:
            raise EngineError(f"{options.repository} has no graph for TensorRT: export one with --target tensorrt")
        machine = describe_machine(options.trtexec, options.nvidia_smi)
        for number, folder in enumerate(folders, 1):
            name = f"{number}/{len(folders)} {folder.parent.name}"
            record = {**machine, "graph_sha256": sum_graph(folder)}
            if not options.force and is_current(folder, record):
                say(f"{name}: the engine is up to date")
                continue
            say(f"{name}: building an engine for {machine['gpu']} with TensorRT {machine['tensorrt']} (minutes)")
            build(folder, options.trtexec, record)
    except EngineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted; complete engines are kept\n")
        return 130
    return 0


def describe_machine(trtexec: str, nvidia_smi: str) -> dict[str, str]:
    """Return the name and the compute capability of the first GPU, and the version of TensorRT.

    Raises:
        EngineError: There is no GPU, driver or TensorRT.
    """
    query = [nvidia_smi, "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    first, *_ = [*read(query, "no GPU driver: run this where the GPU is").splitlines(), ""]
    gpu, comma, capability = first.rpartition(", ")
    if not comma:
        raise EngineError(f"{nvidia_smi} lists no GPU")
    version = _VERSION.search(read([trtexec, "--help"], "no TensorRT: run this in nvcr.io/nvidia/tensorrt"))
    if version is None:
        raise EngineError(f"{trtexec} does not say which version of TensorRT it is")
    return {"gpu": gpu, "compute_capability": capability, "tensorrt": version[1]}


def sum_graph(folder: Path) -> str:
    """Return one SHA-256 sum of the graph, its weights and its profiles, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob(f"{GRAPH}*"), folder / PROFILES]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def is_current(folder: Path, record: Mapping[str, str]) -> bool:
    """Return whether the folder has an engine of this graph for this machine."""
    try:
        return (folder / ENGINE).is_file() and json.loads((folder / RECORD).read_text("utf-8")) == record
    except (OSError, ValueError):
        return False


def build(folder: Path, trtexec: str, record: Mapping[str, str]) -> None:
    """Build the engine of a folder, and publish it with its record.

    Raises:
        EngineError: The build fails; the log stays in the folder, and so does the engine that was there.
    """
    unfinished, log = folder / f".{ENGINE}.unfinished", folder / f".{ENGINE}.log"
    profiles = json.loads((folder / PROFILES).read_text("utf-8"))
    command = [trtexec, *trtexec_options(folder / GRAPH, unfinished, profiles)]
    started = time.monotonic()
    try:
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            wait(process, started)
        if process.returncode or not unfinished.is_file():
            lines = log.read_text("utf-8", errors="replace").splitlines()
            *_, reason = ["it wrote no error", *(line for line in lines if "[E]" in line)]
            raise EngineError(f"{trtexec} failed with status {process.returncode}: {reason.strip()} (log: {log})")
        (folder / RECORD).unlink(missing_ok=True)  # no record is better than that of another engine
        os.replace(unfinished, folder / ENGINE)
        (folder / RECORD).write_text(json.dumps(dict(record), indent=1) + "\n", "utf-8")
        log.unlink()
    finally:
        unfinished.unlink(missing_ok=True)
    say(f"  done in {time.monotonic() - started:.0f} s")


def trtexec_options(graph: Path, engine: Path, profiles: Mapping[str, Profile]) -> Iterator[str]:
    """Yield the options that build an engine with a profile for each entry, in this order.

    Args:
        graph: ONNX file.
        engine: File to write.
        profiles: Profiles by name.
    """
    yield from (f"--onnx={graph}", f"--saveEngine={engine}", "--skipInference", "--builderOptimizationLevel=4")
    yield f"--timingCacheFile={engine.parent / '.timing.cache'}"
    for number, sizes in enumerate(profiles.values()):
        yield f"--profile={number}"
        for bound in ("min", "opt", "max"):
            yield f"--{bound}Shapes=" + ",".join(f"{name}:{size[bound]}" for name, size in sizes.items())


def wait(process: subprocess.Popen[bytes], started: float) -> None:
    """Wait for a build, saying now and then how long it has taken; it ends with this process."""
    try:
        while True:
            try:
                process.wait(PROGRESS_S)
                return
            except subprocess.TimeoutExpired:
                say(f"  {time.monotonic() - started:.0f} s")
    finally:
        process.kill()
        process.wait()


def read(command: Sequence[str], problem: str) -> str:
    """Return what a command prints.

    Raises:
        EngineError: It cannot be run, or fails.
    """
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise EngineError(f"{command[0]} cannot be run: {problem}") from error


def say(line: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
