"""Our int8 export against our fp32 export of the same weights, both in the bare loop; and how much they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bench.contenders.engine import EngineLoop
from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import SHORT, load_sentences

NAME = "int8"
BATCH_SIZES = (8, 16, 32)
LOAD = Load(SHORT, 32, 16)
MEAN_COSINE, LOWEST_COSINE = "mean cosine", "lowest cosine"


def run(workbench: Workbench) -> list[Measurement]:
    """Measure short texts in batches of up to 32, and compare the embeddings of real sentences."""
    given = (workbench.tokenizer_path, workbench.texts, workbench.settings.seconds)
    fp32 = EngineLoop(workbench.graph, *given, name="fp32", batch_sizes=BATCH_SIZES)
    int8 = EngineLoop(workbench.int8_graph, *given, name="int8", batch_sizes=BATCH_SIZES)
    agreement = compare_embeddings(fp32, int8)
    contenders: list[Contender] = [fp32, int8]
    of_fp32, of_int8 = alternate(NAME, contenders, LOAD, workbench.settings.rounds)
    return [of_fp32, replace(of_int8, figures=agreement)]


def compare_embeddings(fp32: EngineLoop, int8: EngineLoop) -> Mapping[str, float]:
    """Return mean and lowest cosine over sentences of many scripts; embeddings have length 1."""
    sentences = load_sentences()
    cosines = np.sum(fp32.embed(sentences) * int8.embed(sentences), axis=1)
    return {"sentences": len(sentences), MEAN_COSINE: float(cosines.mean()), LOWEST_COSINE: float(cosines.min())}
