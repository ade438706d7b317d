"""A checkpoint folder: its weights in safetensors files, and the JSON and text files beside them.

A checkpoint may come from anywhere, and parts of it are served. So only regular files inside its folder are read, up to
a maximum size: a link to another file of this machine or a pipe is refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
TRANSFORMER, DENSE = "Transformer", "Dense"
MAX_JSON_BYTES = 16 << 20
MAX_TOKENIZER_BYTES = 256 << 20
MAX_TEXT_BYTES = 1 << 20
_FLOATING = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Module:
    """An entry of `modules.json`.

    Attributes:
        kind: Last part of the name of its class, such as `Pooling`.
        path: Its folder inside the checkpoint; empty for the checkpoint's own.
    """

    kind: str
    path: str


class Checkpoint:
    """The files of one model, each read on first use.

    Args:
        folder: Folder of the files. In the model hub's cache they are links to the folder `blobs` of the same model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        resolved = folder.resolve()
        self._roots = [resolved]
        if resolved.parent.name == "snapshots" and resolved.parent.parent.name.startswith("models--"):
            self._roots.append(resolved.parent.parent / "blobs")

    @cached_property
    def modules(self) -> Sequence[Module] | None:
        """The modules of `modules.json`, in order; None without this file of sentence-transformers.

        Raises:
            CheckpointError: It is not a list of modules.
        """
        entries = self.json("modules.json")
        if entries is None:
            return None
        try:
            if not isinstance(entries, list):
                raise TypeError
            return [Module(str(entry["type"]).rsplit(".", 1)[-1], str(entry.get("path") or "")) for entry in entries]
        except (AttributeError, KeyError, TypeError):
            raise CheckpointError(f"{self.folder / 'modules.json'} is not a list of modules") from None

    @cached_property
    def transformer(self) -> str:
        """Folder of the transformer inside the checkpoint; empty for the checkpoint's own."""
        return next((module.path for module in self.modules or () if module.kind == TRANSFORMER), "")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Content of `config.json`: the numbers of the architecture."""
        return self.require_json(self.transformer_file("config.json"))

    @cached_property
    def tokenizer(self) -> Mapping[str, Any]:
        """Content of `tokenizer.json`: the whole tokenizer, as the `tokenizers` library reads it."""
        return self._require_object(self.transformer_file("tokenizer.json"), MAX_TOKENIZER_BYTES)

    @cached_property
    def weights(self) -> SafetensorsWeights:
        """Named tensors of the model; those of a dense module follow the name of its folder, as `2_Dense.`."""
        files = {path: "" for path in self._find_weights()}
        for module in self.modules or ():
            if module.kind == DENSE:
                files[self._require(f"{module.path}/{WEIGHTS}")] = f"{module.path}."
        return SafetensorsWeights(files)

    def transformer_file(self, name: str) -> str:
        """Return the path, inside the checkpoint, of a file beside the transformer."""
        return f"{self.transformer}/{name}" if self.transformer else name

    def json(self, name: str) -> Any:
        """Return the content of a JSON file, or None if the checkpoint has no such file.

        Raises:
            CheckpointError: The file must not be read, or is not JSON.
        """
        return self._json(name, MAX_JSON_BYTES)

    def require_json(self, name: str) -> Mapping[str, Any]:
        """Return the object in a JSON file.

        Raises:
            CheckpointFileMissingError: The checkpoint has no such file.
            CheckpointError: The file must not be read, or is not a JSON object.
        """
        return self._require_object(name, MAX_JSON_BYTES)

    def text(self, name: str) -> str | None:
        """Return the content of a text file, or None if the checkpoint has no such file.

        Raises:
            CheckpointError: The file must not be read.
        """
        content = self._read(name, MAX_TEXT_BYTES)
        return None if content is None else content.decode("utf-8", errors="replace")

    def _json(self, name: str, max_bytes: int) -> Any:
        content = self._read(name, max_bytes)
        try:
            return None if content is None else json.loads(content)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.folder / name} is not valid JSON") from error

    def _require_object(self, name: str, max_bytes: int) -> Mapping[str, Any]:
        content = self._json(name, max_bytes)
        if content is None:
            raise CheckpointFileMissingError(self.folder, name)
        if not isinstance(content, dict):
            raise CheckpointError(f"{self.folder / name} is not a JSON object")
        return content

    def _read(self, name: str, max_bytes: int) -> bytes | None:
        path = self._find(name)
        if path is None:
            return None
        try:
            size = path.stat().st_size
            if size > max_bytes:
                raise CheckpointError(f"{path} has {size} bytes; at most {max_bytes} are read")
            return path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error

    def _find(self, name: str) -> Path | None:
        """Return the path of a file, or None if the checkpoint has no such file.

        Raises:
            CheckpointError: It is not a regular file, or not inside the checkpoint.
        """
        path = self.folder / name
        try:
            resolved = path.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise CheckpointError(f"{path} is a broken link") from None
            return None
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        if not any(resolved.is_relative_to(root) for root in self._roots):
            raise CheckpointError(f"{path} is a link out of the checkpoint, to {resolved}: replace it with a copy")
        if not resolved.is_file():
            raise CheckpointError(f"{path} is not a regular file")
        if not os.access(path, os.R_OK):
            raise CheckpointError(f"{path} cannot be read by user {os.geteuid()}: make it readable to all")
        return path

    def _find_weights(self) -> tuple[Path, ...]:
        if single := self._find(self.transformer_file(WEIGHTS)):
            return (single,)
        index = self.json(self.transformer_file(WEIGHTS_INDEX))
        if index is None:
            pickles = sorted(path.name for path in (self.folder / self.transformer).glob("*.bin"))
            hint = f"{pickles[0]} is a pickle, which is never loaded; convert it to safetensors" if pickles else ""
            raise CheckpointFileMissingError(self.folder / self.transformer, WEIGHTS, hint)
        return tuple(self._find_shard(name) for name in self._list_shards(index))

    def _list_shards(self, index: Any) -> list[str]:
        try:
            shards = sorted(set(index["weight_map"].values()))
        except (KeyError, AttributeError, TypeError):
            shards = []
        if not shards or not all(isinstance(shard, str) for shard in shards):
            raise CheckpointError(f"{self.folder / WEIGHTS_INDEX} is not an index of shards")
        return shards

    def _find_shard(self, name: str) -> Path:
        if Path(name).name != name:
            raise CheckpointError(f"{self.folder / WEIGHTS_INDEX} names a shard outside its folder: {name}")
        return self._require(self.transformer_file(name), f"{WEIGHTS_INDEX} names it")

    def _require(self, name: str, hint: str = "") -> Path:
        path = self._find(name)
        if path is None:
            raise CheckpointFileMissingError(self.folder, name, hint)
        return path


class SafetensorsWeights:
    """Named tensors of safetensors files, which graphs see as `export.graphs.weights.Weights`.

    Only headers are read in advance. A tensor is read when asked for and not kept.

    Args:
        files: Each file, with a prefix for the names of its tensors.

    Raises:
        CheckpointError: A file is not a valid safetensors file.
    """

    def __init__(self, files: Mapping[Path, str]) -> None:
        self.paths = tuple(files)
        self._place_of: dict[str, tuple[Any, str]] = {}
        for path, prefix in files.items():
            handle = _open_safetensors(path)
            self._place_of.update({prefix + name: (handle, name) for name in handle.keys()})

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._place_of)

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
        file, stored_name = self._place_of[name]
        return np.ascontiguousarray(file.get_tensor(stored_name), dtype=np.float32)

    def _slice(self, name: str) -> Any:
        if name not in self._place_of:
            raise CheckpointError(f"the checkpoint has no tensor {name}")
        file, stored_name = self._place_of[name]
        return file.get_slice(stored_name)


def _open_safetensors(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
