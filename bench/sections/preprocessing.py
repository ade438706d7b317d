"""A page image to patches on one core, against Pillow's decoding and resizing alone."""

from __future__ import annotations

from bench.contenders.preprocessing import TILING, PageLoop, decode_and_resize, decode_and_tile, in_worker
from bench.pages import PAGE_KINDS, page_files
from bench.results import Load, Measurement
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from preprocess.decode_pool import DecodePool

NAME = "preprocessing"
TIME_LIMIT_S = 20.0
MEMORY_LIMIT_BYTES = 3 * 1024**3


def run(workbench: Workbench) -> list[Measurement]:
    """Measure pages of both kinds."""
    settings, files = workbench.settings, page_files()
    loads = [Load(workload, 1, 1) for workload in PAGE_KINDS]
    with DecodePool(1, TIME_LIMIT_S, MEMORY_LIMIT_BYTES, TILING) as pool:
        contenders: list[Contender] = [
            PageLoop("Pillow", decode_and_resize, files, settings.seconds),
            PageLoop("tiles", decode_and_tile, files, settings.seconds),
            PageLoop("worker", in_worker(pool), files, settings.seconds),
        ]
        return [each for load in loads for each in alternate(NAME, contenders, load, settings.rounds)]
