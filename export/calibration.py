"""How large the activations of a model become over sample inputs, for the products of int8 graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.architectures import EmbedSamples
from export.graphs.builder import save_model
from export.graphs.quantized import watch_columns
from export.spec import Target
from export.validation import Inputs, open_graph


def measure_columns(
    graphs: Mapping[str, Callable[[], ir.Model]], embed_samples: EmbedSamples, work: Path
) -> Mapping[str, NDArray[np.float32]]:
    """Return the largest magnitude of each column of rows, by the name of the product that they enter.

    Args:
        graphs: Builders of int8 graphs, by step.
        embed_samples: Runs them on the sample inputs.
        work: Folder for the graphs while they are run.
    """
    watch = _ColumnWatch()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        files = {}
        for step, build in graphs.items():
            model = build()
            watch_columns(model)
            Path(folder, step).mkdir()
            files[step] = save_model(model, Path(folder, step))
        embed_samples(files, watch.run)
    return watch.largest


@dataclass
class _ColumnWatch:
    """Runs watched graphs, and keeps the largest magnitude of each column over all runs."""

    largest: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def run(self, path: Path, target: Target, output: str, inputs: Inputs) -> NDArray[np.float32]:
        """Return one output of a graph, as `run_graph` does."""
        graph = open_graph(path, target)
        results = dict(zip([each.name for each in graph.get_outputs()], graph.run(None, inputs), strict=True))
        result: NDArray[np.float32] = results.pop(output)
        for name, columns in results.items():
            self.largest[name] = np.maximum(columns, self.largest.get(name, 0))
        return result
