"""The usual form of the same weights: optimum's export, every batch padded to its longest sequence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.contenders.engine import Feeds


class PaddedForm:
    """Sequences in a rectangle, with a mask for what is real; pooled outside of the graph."""

    def feeds(self, sequences: Sequence[Sequence[int]]) -> Feeds:
        """Return `input_ids`, `attention_mask` and `token_type_ids`, each (n, longest)."""
        shape = (len(sequences), max(map(len, sequences)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}

    def embeddings(self, output: npt.NDArray[np.float32], feeds: Feeds) -> npt.NDArray[np.float32]:
        """Return the mean over the real tokens (n, D) at length 1, of hidden states (n, longest, D)."""
        mask = feeds["attention_mask"].astype(np.float32)
        pooled = np.matmul(mask[:, None, :], output)[:, 0]
        unit: npt.NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return unit


def export_padded(checkpoint: Path, folder: Path) -> Path:
    """Return optimum's ONNX export of a checkpoint, made if it is not there."""
    graph = folder / "model.onnx"
    if not graph.exists():
        from optimum.exporters.onnx import main_export

        main_export(
            str(checkpoint), output=folder, task="feature-extraction", library_name="transformers", do_validation=False
        )
    return graph
