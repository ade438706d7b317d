"""The manifest: what was exported, from what, how closely it agrees, and the sum of every file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.repository import CONFIG
from export.spec import ModelSpec, Precision
from export.verify import sha256_files

_INSTRUCTION = re.compile(r"(Instruct: ).+(\nQuery: ?)", re.DOTALL)
QUANTIZATION = "smoothed"
"""How int8 graphs are quantized: another name for each way that gives other vectors."""


@dataclass(frozen=True)
class FileEntry:
    """One file of the repository; `path` is relative to it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The manifest's JSON object, field by field, as docs/contract.md describes it."""

    public_id: str
    source: str
    revision: str | None
    created: int  # Unix seconds
    task: str
    activation: str | None  # of a reranker
    architecture: str
    precision: str
    target: str
    opset: int
    layout: str
    dimensions: int | None  # of an embedding
    max_tokens: int
    pooling: str
    query_prefix: str
    passage_prefix: str
    prompts: Mapping[str, str]
    instruction_template: str | None
    modalities: tuple[str, ...]
    license: str
    license_text: str
    description: str
    fingerprint: str
    preprocessing: Mapping[str, str]
    validation: Mapping[str, float | int | str]
    files: tuple[FileEntry, ...]

    def to_json(self) -> str:
        """Return the manifest as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


def find_instruction_template(query_prefix: str) -> str | None:
    """Return a query's prefix with `{instruction}` in place of the model's own instruction, or None if it has none.

    Qwen3 Embedding and others are trained with tasks of any kind, written in this way.
    """
    found = _INSTRUCTION.fullmatch(query_prefix)
    return f"{found[1]}{{instruction}}{found[2]}" if found else None


def list_files(models: Path) -> tuple[FileEntry, ...]:
    """Return the size and the sum of each file below a folder of models.

    `config.pbtxt` is left out, so that operators can change batching, queues and threads.
    """
    paths = sorted(path for path in models.rglob("*") if path.is_file() and path.name != CONFIG)
    sums = sha256_files(paths)
    return tuple(FileEntry(path.relative_to(models).as_posix(), path.stat().st_size, sums[path]) for path in paths)


def fingerprint(weights: Iterable[Path], precision: Precision, spec: ModelSpec, tokenizer: bytes) -> str:
    """Return one sum over everything that decides a vector: vectors of equal fingerprints are comparable.

    Args:
        weights: Files of the weights.
        precision: Precision of the graphs.
        spec: Numbers of the model, its preprocessing and pooling included.
        tokenizer: Content of the `tokenizer.json` that is served.
    """
    parts: dict[str, Any] = {
        "weights": sorted(sha256_files(weights).values()),
        "precision": precision,
        # Embedding models have the fingerprints that they had before there were rerankers.
        "spec": {name: value for name, value in asdict(spec).items() if name != "rank" or value is not None},
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
    }
    if precision == "int8":
        parts["quantization"] = QUANTIZATION
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
