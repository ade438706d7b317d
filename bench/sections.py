"""Sections of the benchmark, by the names that the command line takes. Those about images: `bench.page_sections`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from bench.contenders import Contender, check_same_embeddings, log_measurement, measure_in_turns
from bench.engine import EngineLoop, PaddedLayout, export_padded
from bench.page_sections import measure_decoders, measure_interference, measure_pages, measure_preprocessing
from bench.peers import PEERS
from bench.results import Load, Measurement, Sample
from bench.workbench import Workbench
from bench.workloads import MIXED, PASSAGES, SHORT, TINY, TOKEN_LENGTHS, load_sentences

# Number of clients in the sections that vary something else.
FEW_CLIENTS = 4

CHECKED_TEXTS = 8
# Other servers may compute in another order, or in lower precision.
PEER_TOLERANCE = 1e-3

PADDING_BATCH = 32
PADDING_TOLERANCE = 1e-4

INT8_BATCH_SIZES = (8, 16, 32)
INT8_LOAD = Load(SHORT, 32, 16)
MEAN_COSINE, LOWEST_COSINE = "mean cosine", "lowest cosine"

ITEMS_PER_LENGTH_REQUEST = 8


def measure_throughput(workbench: Workbench) -> list[Measurement]:
    """Measure 12-word texts through the gateway against the engine limit, by request size and number of clients."""
    settings = workbench.settings
    loads = [Load(SHORT, items, clients) for items in settings.items_per_request for clients in settings.concurrencies]
    return _measure_loads("throughput", [workbench.engine, workbench.gateway], loads, workbench)


def measure_gateway_alone(workbench: Workbench) -> list[Measurement]:
    """Measure what the gateway itself costs, in front of an engine that responds immediately."""
    settings = workbench.settings
    loads = [Load(SHORT, items, settings.concurrencies[-1]) for items in settings.items_per_request]
    with workbench.run_gateway_alone() as contender:
        return _measure_loads("gateway_alone", [contender], loads, workbench)


def measure_peers(workbench: Workbench) -> list[Measurement]:
    """Measure the service against other servers: single short texts, then large requests and mixed lengths."""
    settings = workbench.settings
    largest, many = max(settings.items_per_request), settings.concurrencies[1]
    loads = [Load(SHORT, 1, clients) for clients in settings.concurrencies]
    loads += [Load(SHORT, largest, many), Load(MIXED, 1, many)]
    with ExitStack() as started:
        contenders = [workbench.gateway, *(started.enter_context(workbench.run_peer(peer)) for peer in PEERS)]
        check_same_embeddings(contenders, workbench.texts[MIXED][:CHECKED_TEXTS], PEER_TOLERANCE)
        return _measure_loads("peers", contenders, loads, workbench)


def measure_triton(workbench: Workbench) -> list[Measurement]:
    """Measure the text ensemble over gRPC, between the engine limit below it and the gateway above it."""
    settings = workbench.settings
    largest, clients = max(settings.items_per_request), settings.concurrencies
    loads = [Load(SHORT, 1, clients[0]), Load(SHORT, 1, clients[-1]), Load(SHORT, largest, clients[1])]
    return _measure_loads("triton", [workbench.engine, workbench.triton, workbench.gateway], loads, workbench)


def measure_lengths(workbench: Workbench) -> list[Measurement]:
    """Measure texts of 8 to 256 tokens, then all lengths mixed, through the gateway and in the bare loop."""
    loads = [make_length_load(name_length(tokens)) for tokens in TOKEN_LENGTHS] + [make_length_load(MIXED)]
    return _measure_loads("lengths", [workbench.engine, workbench.gateway], loads, workbench)


def make_length_load(workload: str) -> Load:
    """Return the load of a workload in the section `lengths`."""
    return Load(workload, ITEMS_PER_LENGTH_REQUEST, FEW_CLIENTS)


def name_length(tokens: int) -> str:
    """Return the workload of texts of so many tokens."""
    return f"{tokens} tokens"


def measure_responses(workbench: Workbench) -> list[Measurement]:
    """Measure what response formats cost in large requests: JSON numbers, base64, int8, fewer dimensions."""
    contenders = [
        workbench.make_gateway("float"),
        workbench.make_gateway("base64", encoding_format="base64"),
        workbench.make_gateway("int8", embedding_type="int8"),
        workbench.make_gateway("int8 as base64", embedding_type="int8", encoding_format="base64"),
        workbench.make_gateway("256 dimensions", dimensions=256),
    ]
    load = Load(SHORT, max(workbench.settings.items_per_request), FEW_CLIENTS)
    return _measure_loads("responses", contenders, [load], workbench)


def measure_growth(workbench: Workbench) -> list[Measurement]:
    """Measure whether an item costs more after 100,000 items than after 1,000, in one run without a pause."""
    settings = workbench.settings
    load = Load(TINY, max(settings.items_per_request), FEW_CLIENTS)
    slices: list[tuple[int, Sample]] = []
    passed = 0
    while passed < settings.growth_items[-1]:
        sample = workbench.gateway.measure(load)
        passed += sample.requests * load.items_per_request
        slices.append((passed, sample))
    measurements = []
    for start, end in zip((0, *settings.growth_items), settings.growth_items, strict=False):
        part = replace(load, workload=f"{TINY}, to {end} items")
        measurements.append(Measurement("growth", "gateway", part, select_slices(slices, start, end)))
        log_measurement(measurements[-1])
    return measurements


def select_slices(slices: Sequence[tuple[int, Sample]], start: int, end: int) -> list[Sample]:
    """Return the slices that ended after `start` items and by `end`; at least the first that ended after `start`."""
    later = [(passed, sample) for passed, sample in slices if passed > start]
    return [sample for passed, sample in later if passed <= end] or [later[0][1]]


def measure_padding(workbench: Workbench) -> list[Measurement]:
    """Measure the packed graph against optimum's padded export in the bare loop, with texts in order of arrival."""
    settings = workbench.settings
    padded_graph = export_padded(workbench.checkpoint, settings.build_dir / "padded")
    common = (workbench.tokenizer_path, workbench.texts, settings.seconds)
    packed = EngineLoop(workbench.graph, *common, name="packed", batch_sizes=(PADDING_BATCH,))
    padded = EngineLoop(padded_graph, *common, name="padded", layout=PaddedLayout(), batch_sizes=(PADDING_BATCH,))
    check_same_embeddings([packed, padded], workbench.texts[MIXED][:PADDING_BATCH], PADDING_TOLERANCE)
    loads = [make_padding_load(workload) for workload in (SHORT, MIXED, PASSAGES)]
    return _measure_loads("padding", [packed, padded], loads, workbench)


def make_padding_load(workload: str) -> Load:
    """Return the load of a workload in the section `padding`."""
    return Load(workload, PADDING_BATCH, 1)


def measure_int8(workbench: Workbench) -> list[Measurement]:
    """Measure the int8 export against the fp32 export in the bare loop, and how close their embeddings are."""
    common = (workbench.tokenizer_path, workbench.texts, workbench.settings.seconds)
    fp32 = EngineLoop(workbench.graph, *common, name="fp32", batch_sizes=INT8_BATCH_SIZES)
    int8 = EngineLoop(workbench.int8_graph, *common, name="int8", batch_sizes=INT8_BATCH_SIZES)
    agreement = compare_embeddings(fp32, int8)
    of_fp32, of_int8 = _measure_loads("int8", [fp32, int8], [INT8_LOAD], workbench)
    return [of_fp32, replace(of_int8, figures=agreement)]


def compare_embeddings(fp32: EngineLoop, int8: EngineLoop) -> Mapping[str, float]:
    """Return the mean and the lowest cosine over sentences in many scripts; embeddings are normalised."""
    sentences = load_sentences()
    cosines = np.sum(fp32.embed(sentences) * int8.embed(sentences), axis=1)
    return {"sentences": len(sentences), MEAN_COSINE: float(cosines.mean()), LOWEST_COSINE: float(cosines.min())}


def _measure_loads(
    section: str, contenders: Sequence[Contender], loads: Sequence[Load], workbench: Workbench
) -> list[Measurement]:
    rounds = workbench.settings.rounds
    return [each for load in loads for each in measure_in_turns(section, contenders, load, rounds)]


# Measures one thing, independently of the other sections.
Section = Callable[[Workbench], list[Measurement]]

SECTIONS: Mapping[str, Section] = {
    "throughput": measure_throughput,
    "gateway_alone": measure_gateway_alone,
    "peers": measure_peers,
    "padding": measure_padding,
    "int8": measure_int8,
    "lengths": measure_lengths,
    "responses": measure_responses,
    "pages": measure_pages,
    "interference": measure_interference,
    "preprocessing": measure_preprocessing,
    "decoders": measure_decoders,
    "triton": measure_triton,
    "growth": measure_growth,
}
