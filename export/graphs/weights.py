"""The tensors of a checkpoint, as graphs read them."""

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
