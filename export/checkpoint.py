"""A checkpoint folder: its weights in safetensors files, and the JSON and text files beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - registers bfloat16 with NumPy
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from export.errors import CheckpointError, CheckpointFileMissingError

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_FLOATING = {"F64", "F32", "F16", "BF16"}


class Checkpoint:
    """The files of one model, each read on first use.

    Args:
        folder: Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Content of `config.json`: the numbers of the architecture."""
        return self.require_json("config.json")

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """Content of `tokenizer.json`: the whole tokenizer, as the `tokenizers` library reads it."""
        return self.require_json("tokenizer.json")

    @cached_property
    def weights(self) -> SafetensorsWeights:
        """Named tensors of the model."""
        return SafetensorsWeights(self._find_weights())

    def json(self, name: str) -> Any:
        """Return the content of a JSON file, or None if the checkpoint has no such file.

        Raises:
            CheckpointError: The file is not JSON.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise CheckpointError(f"{path} is not valid JSON") from error

    def require_json(self, name: str) -> Mapping[str, Any]:
        """Return the object in a JSON file.

        Raises:
            CheckpointFileMissingError: The checkpoint has no such file.
            CheckpointError: The file is not a JSON object.
        """
        content = self.json(name)
        if content is None:
            raise CheckpointFileMissingError(self.folder, name)
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.folder / name} is not a JSON object")
        return content

    def text(self, name: str) -> str | None:
        """Return the content of a text file, or None if the checkpoint has no such file."""
        path = self.folder / name
        return path.read_text("utf-8", errors="replace") if path.is_file() else None

    def _find_weights(self) -> tuple[Path, ...]:
        if (self.folder / WEIGHTS).is_file():
            return (self.folder / WEIGHTS,)
        if not (self.folder / WEIGHTS_INDEX).is_file():
            pickles = sorted(path.name for path in self.folder.glob("*.bin"))
            hint = f"{pickles[0]} is a pickle, which is never loaded; convert it to safetensors" if pickles else ""
            raise CheckpointFileMissingError(self.folder, WEIGHTS, hint)
        index = self.folder / WEIGHTS_INDEX
        try:
            shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index} is not an index of shards") from error
        for shard in shards:
            if Path(shard).name != shard:
                raise CheckpointError(f"{index} names a shard outside its folder: {shard}")
            if not (self.folder / shard).is_file():
                raise CheckpointFileMissingError(self.folder, shard, f"{WEIGHTS_INDEX} names it")
        return tuple(self.folder / shard for shard in shards)


class SafetensorsWeights:
    """Named tensors of safetensors files, which graphs see as `export.graphs.weights.Weights`.

    Only headers are read in advance. A tensor is read when asked for and not kept.

    Args:
        paths: The files, a single one or all shards.

    Raises:
        CheckpointError: A file is not a valid safetensors file.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._file_of: dict[str, Any] = {}
        for path in paths:
            handle = _open_safetensors(path)
            self._file_of.update(dict.fromkeys(handle.keys(), handle))

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._file_of)

    @cached_property
    def parameter_count(self) -> int:
        """Number of parameters in all tensors."""
        return sum(math.prod(self.shape(name)) for name in self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return tuple(self._slice(name).get_shape())

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a tensor as C-contiguous float32, whatever its stored type.

        Raises:
            CheckpointError: There is no such tensor, or it is not of a floating-point type.
        """
        stored_type = self._slice(name).get_dtype()
        if stored_type not in _FLOATING:
            raise CheckpointError(f"tensor {name} is stored as {stored_type}; a floating-point type is needed")
        return np.ascontiguousarray(self._file_of[name].get_tensor(name), dtype=np.float32)

    def _slice(self, name: str) -> Any:
        if name not in self._file_of:
            raise CheckpointError(f"the checkpoint has no tensor {name}")
        return self._file_of[name].get_slice(name)


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
