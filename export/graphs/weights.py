"""The tensors of a checkpoint, as graphs read them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Weights(Protocol):
    """Named tensors of a checkpoint, each read when asked for."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        ...

    def read(self, name: str) -> Array:
        """Return a tensor as C-contiguous float32, whatever its stored type."""
        ...


class SplitWeights:
    """The tensors of a checkpoint that stacks matrices, with each of them under a name of its own.

    Args:
        weights: Tensors of the checkpoint.
        stacked: What the rows of a stacked tensor hold, in equal parts, by the last part of its name: with
            `{"Wqkv": ("query", "key", "value")}`, the rows of `attn.Wqkv.weight` are `attn.query.weight` and so on.
    """

    def __init__(self, weights: Weights, stacked: Mapping[str, Sequence[str]]) -> None:
        self._weights = weights
        self._place_of: dict[str, tuple[str, int, int]] = {}
        for name in weights.names:
            *path, layer, kind = name.split(".")
            parts = stacked.get(layer, ())
            for index, part in enumerate(parts):
                self._place_of[".".join([*path, part, kind])] = (name, index, len(parts))

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors, those of stacked ones and of their parts included."""
        return self._weights.names.union(self._place_of)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        if name not in self._place_of:
            return self._weights.shape(name)
        stored, _, parts = self._place_of[name]
        rows, *columns = self._weights.shape(stored)
        return (rows // parts, *columns)

    def read(self, name: str) -> Array:
        """Return a tensor as C-contiguous float32, whatever its stored type."""
        if name not in self._place_of:
            return self._weights.read(name)
        stored, index, parts = self._place_of[name]
        return np.split(self._weights.read(stored), parts)[index]


class UnprefixedWeights:
    """The tensors of a checkpoint without a prefix of their names: the part that a head was put on.

    Args:
        weights: Tensors of the checkpoint.
        prefix: Prefix of some of them; the others keep their names.
    """

    def __init__(self, weights: Weights, prefix: str) -> None:
        self._weights = weights
        self._stored = {name.removeprefix(prefix): name for name in weights.names}

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._weights.shape(self._stored.get(name, name))

    def read(self, name: str) -> Array:
        """Return a tensor as C-contiguous float32, whatever its stored type."""
        return self._weights.read(self._stored.get(name, name))


class DerivedWeights:
    """The tensors of a checkpoint, and one that is computed from them.

    Args:
        weights: Tensors of the checkpoint.
        name: Name of the tensor that is computed; one of that name in the checkpoint is hidden.
        shape: Its shape.
        derive: Computes it.
    """

    def __init__(self, weights: Weights, name: str, shape: tuple[int, ...], derive: Callable[[], Array]) -> None:
        self._weights, self._name, self._shape, self._derive = weights, name, shape, derive

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        return self._weights.names | {self._name}

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._shape if name == self._name else self._weights.shape(name)

    def read(self, name: str) -> Array:
        """Return a tensor as C-contiguous float32, whatever its stored type."""
        return self._derive() if name == self._name else self._weights.read(name)


def find_prefix(weights: Weights, name: str, candidates: tuple[str, ...]) -> str:
    """Return the prefix under which a checkpoint stores a part of the model.

    Args:
        weights: Tensors of the checkpoint.
        name: Tensor that the part always has.
        candidates: Possible prefixes, in order of preference.

    Raises:
        ValueError: No candidate has the tensor.
    """
    for prefix in candidates:
        if prefix + name in weights.names:
            return prefix
    raise ValueError(f"the checkpoint has no tensor {' or '.join(prefix + name for prefix in candidates)}")
