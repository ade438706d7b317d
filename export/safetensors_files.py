"""Weights in safetensors files, single or sharded, read one tensor at a time."""

from __future__ import annotations

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches NumPy the name bfloat16
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from export.errors import CheckpointError, CheckpointFileMissingError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FLOATING = {"F64", "F32", "F16", "BF16"}


class SafetensorsFiles:
    """The named tensors of a checkpoint folder; `export.graphs.weights.Weights` to the graphs.

    Nothing is read before it is asked for, and nothing is kept: a tensor lives as long as its reader holds it.
    """

    def __init__(self, folder: Path) -> None:
        """Find the weights of `folder` and read their headers.

        Raises:
            CheckpointFileMissingError: there are no safetensors, or a shard of the index is absent.
            CheckpointError: a file is not a valid safetensors file.
        """
        self.paths = _find_files(folder)
        self._file_of: dict[str, Any] = {}
        for path in self.paths:
            handle = _open(path)
            self._file_of.update(dict.fromkeys(handle.keys(), handle))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._file_of)

    @cached_property
    def parameter_count(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(math.prod(self.shape(name)) for name in self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return tuple(self._slice(name).get_shape())

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as C-contiguous float32, whatever its stored type.

        Raises:
            CheckpointError: there is no such tensor, or it holds no floating point numbers.
        """
        stored_type = self._slice(name).get_dtype()
        if stored_type not in _FLOATING:
            raise CheckpointError(f"tensor {name} is stored as {stored_type}; floating point is needed")
        return np.ascontiguousarray(self._file_of[name].get_tensor(name), dtype=np.float32)

    def _slice(self, name: str) -> Any:
        if name not in self._file_of:
            raise CheckpointError(f"the checkpoint has no tensor {name}")
        return self._file_of[name].get_slice(name)


def _find_files(folder: Path) -> tuple[Path, ...]:
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"{pickles[0]} is a pickle, which is never loaded; convert it to safetensors" if pickles else ""
        raise CheckpointFileMissingError(folder, SINGLE, hint)
    try:
        shards = sorted(set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX} is not an index of shards") from error
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{folder / INDEX} names a shard outside of its folder: {shard}")
        if not (folder / shard).is_file():
            raise CheckpointFileMissingError(folder, shard, f"{INDEX} names it")
    return tuple(folder / shard for shard in shards)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
