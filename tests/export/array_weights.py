"""A checkpoint in memory."""

from collections.abc import Mapping

import numpy as np


class ArrayWeights:
    """Weights from arrays by name."""

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def read(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(self._tensors[name], dtype=np.float32)
