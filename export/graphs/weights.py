"""What a graph asks of a checkpoint: named tensors, read one at a time."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Weights(Protocol):
    """Named tensors of a checkpoint, read when asked for."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        ...

    def read(self, name: str) -> Array:
        """A tensor as C-contiguous float32, whatever its stored type."""
        ...


def find_prefix(weights: Weights, name: str, candidates: tuple[str, ...]) -> str:
    """Finds under which prefix a checkpoint keeps a part of the model.

    Args:
        weights: The checkpoint.
        name: A tensor that the part always has.
        candidates: Prefixes that are in use for it, the preferred one first.

    Returns:
        The first candidate under which `name` exists.

    Raises:
        ValueError: If there is none.
    """
    for prefix in candidates:
        if prefix + name in weights.names:
            return prefix
    raise ValueError(f"the checkpoint has no tensor {' or '.join(prefix + name for prefix in candidates)}")
