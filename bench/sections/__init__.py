"""The parts of the benchmark, by the names that the command line takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.results import Measurement
from bench.sections import (
    gateway_alone,
    growth,
    int8,
    interference,
    lengths,
    padding,
    pages,
    peers,
    preprocessing,
    responses,
    throughput,
    triton,
)
from bench.workbench import Workbench

Section = Callable[[Workbench], list[Measurement]]
"""Measures one thing; needs nothing of another section."""

SECTIONS: Mapping[str, Section] = {
    module.NAME: module.run
    for module in (
        throughput,
        gateway_alone,
        peers,
        padding,
        int8,
        lengths,
        responses,
        pages,
        interference,
        preprocessing,
        triton,
        growth,
    )
}
