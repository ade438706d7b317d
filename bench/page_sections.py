"""Sections about page images: through the service, next to texts, and through preprocessing alone."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from bench.contenders import Contender, HttpContender, measure_in_turns
from bench.results import Load, Measurement, Sample
from bench.workbench import Workbench
from bench.workloads import JPEG_PAGES, PAGE_FORMATS, PAGES_AND_TEXTS, PNG_PAGES, SHORT, make_page_files
from export.names import PREPROCESS_IMAGE, slug
from export.repository import read_config
from launcher.settings import STAND_IN
from preprocess.decode import decode_image
from preprocess.decode_pool import DecodePool
from preprocess.items import ImageFile, RequestError, Tensors
from preprocess.settings import ImageLimits, Tiling
from preprocess.steps import DECODE_MEMORY_LIMIT_BYTES, DECODE_TIME_LIMIT_S, DecodeStep, Step, load_step
from preprocess.tiles import choose_grid, cut_tiles

PAGE_CLIENTS = 4
STREAM_LOAD = Load(PNG_PAGES, 1, 2)

TILING = Tiling()

# Preprocesses one encoded page.
Preprocess = Callable[[bytes], object]


def measure_pages(workbench: Workbench) -> list[Measurement]:
    """Measure single pages of both formats, then a page and seven texts in one request."""
    gateway = workbench.make_page_gateway("gateway")
    loads = [
        Load(PNG_PAGES, 1, 1),
        Load(PNG_PAGES, 1, PAGE_CLIENTS),
        Load(JPEG_PAGES, 1, PAGE_CLIENTS),
        Load(PAGES_AND_TEXTS, 8, PAGE_CLIENTS),
    ]
    return [each for load in loads for each in measure_in_turns("pages", [gateway], load, workbench.settings.rounds)]


def measure_interference(workbench: Workbench) -> list[Measurement]:
    """Measure one client with single texts, alone and next to two that stream pages to the same model."""
    texts = workbench.make_page_gateway("texts alone")
    pages = workbench.make_page_gateway("pages")
    contenders: list[Contender] = [texts, TextsBesidePages(workbench.make_page_gateway("texts"), pages)]
    return measure_in_turns("interference", contenders, Load(SHORT, 1, 1), workbench.settings.rounds)


class TextsBesidePages:
    """Texts timed while pages stream; both end at about the same time.

    Args:
        texts: Contender for the texts.
        pages: Contender for the pages.
    """

    name = "texts beside pages"

    def __init__(self, texts: HttpContender, pages: HttpContender) -> None:
        self._texts, self._pages = texts, pages

    def measure(self, load: Load) -> Sample:
        """Time the texts."""
        self._texts.warm_up(load)
        self._pages.warm_up(STREAM_LOAD)
        with ThreadPoolExecutor(1) as threads:
            streaming = threads.submit(self._pages.measure, STREAM_LOAD)
            sample = self._texts.measure(load)
            streaming.result()
        return sample


def measure_preprocessing(workbench: Workbench) -> list[Measurement]:
    """Measure a page from file to patches on one core, against Pillow's decoding and resizing alone."""
    settings, files = workbench.settings, make_page_files()
    with DecodePool(1, DECODE_TIME_LIMIT_S, DECODE_MEMORY_LIMIT_BYTES, TILING) as pool:
        contenders = [
            PageLoop("Pillow", decode_and_resize, files, settings.seconds),
            PageLoop("tiles", decode_and_tile, files, settings.seconds),
            PageLoop("worker", lambda page: pool.preprocess([ImageFile(page)]), files, settings.seconds),
        ]
        loads = [Load(workload, 1, 1) for workload in PAGE_FORMATS]
        return [each for load in loads for each in measure_in_turns("preprocessing", contenders, load, settings.rounds)]


class PageLoop:
    """Preprocesses pages one by one, on one core.

    Args:
        name: Name in tables.
        preprocess: What to do with a page.
        pages: Encoded pages by workload.
        seconds: Minimum length of one measurement.
    """

    def __init__(self, name: str, preprocess: Preprocess, pages: Mapping[str, Sequence[bytes]], seconds: float) -> None:
        self.name = name
        self._preprocess, self._pages, self._seconds = preprocess, pages, seconds

    def measure(self, load: Load) -> Sample:
        """Preprocess every page at least once."""
        pages = self._pages[load.workload]
        times: list[float] = []
        started = time.perf_counter()
        while time.perf_counter() - started < self._seconds or len(times) < len(pages):
            before = time.perf_counter()
            self._preprocess(pages[len(times) % len(pages)])
            times.append(time.perf_counter() - before)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        return Sample(len(times) / sum(times), float(p50), float(p99), len(times))


def decode_and_resize(page: bytes) -> object:
    """Do what every user of Pillow has to: decode, convert to RGB, resize to the grid of tiles and to the thumbnail."""
    with Image.open(io.BytesIO(page)) as opened:
        image = opened.convert("RGB")
    grid = choose_grid(image.width, image.height, TILING)
    sizes = [(grid.columns * TILING.tile_size, grid.rows * TILING.tile_size), (TILING.tile_size, TILING.tile_size)]
    return [image.resize(size, Image.Resampling.BICUBIC) for size in sizes]


def decode_and_tile(page: bytes) -> object:
    """Do what a decode worker does, in this process."""
    return cut_tiles(decode_image(page, ImageLimits()), TILING)


def measure_decoders(workbench: Workbench) -> list[Measurement]:
    """Measure the preprocessing step by its number of decoders: powers of two, up to one for each core."""
    settings, files = workbench.settings, make_page_files()
    folder = workbench.repository / f"{slug(STAND_IN)}_{PREPROCESS_IMAGE}"
    parameters = {name: value.string_value for name, value in read_config(folder).parameters.items()}
    cores = len(os.sched_getaffinity(0))
    contenders = [
        StepLoop(load_step(folder / "1", parameters | {"decode_workers": str(count)}), count, files, settings.seconds)
        for count in (1 << power for power in range(cores.bit_length()))
    ]
    try:
        loads = [Load(workload, 1, 2 * cores) for workload in PAGE_FORMATS]
        return [each for load in loads for each in measure_in_turns("decoders", contenders, load, settings.rounds)]
    finally:
        for contender in contenders:
            contender.close()


class StepLoop:
    """Sends pages through the preprocessing step, without Triton; it has its decoders, and this process.

    Args:
        step: The step; closed with the contender.
        decoders: Number of its decoders.
        pages: Encoded pages by workload.
        seconds: Minimum length of one measurement.
    """

    def __init__(self, step: Step, decoders: int, pages: Mapping[str, Sequence[bytes]], seconds: float) -> None:
        assert isinstance(step, DecodeStep)  # noqa: S101 - its parameters say so
        self.name = f"{decoders} decoder{'s' if decoders > 1 else ''}"
        self._step, self._pages, self._seconds = step, pages, seconds

    def measure(self, load: Load) -> Sample:
        """Preprocess pages, as many at a time as there are clients; the step's CPU time is that of this process."""
        pages = cycle([np.array([page], np.object_) for page in self._pages[load.workload]])
        times: list[float] = []
        own, decoding, started = time.process_time(), read_decoding_seconds(), time.perf_counter()
        waiting = deque(self._send(next(pages)) for _ in range(load.concurrency))
        while waiting:
            sent, result = waiting.popleft()
            result.result()
            times.append(time.perf_counter() - sent)
            if time.perf_counter() - started < self._seconds:
                waiting.append(self._send(next(pages)))
        elapsed = time.perf_counter() - started
        cpu = {"step": time.process_time() - own, "decoders": read_decoding_seconds() - decoding}
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        cpu_us_per_item = {name: seconds / len(times) * 1e6 for name, seconds in cpu.items()}
        return Sample(len(times) / elapsed, float(p50), float(p99), len(times), cpu_us_per_item=cpu_us_per_item)

    def _send(self, page: NDArray[np.object_]) -> tuple[float, Future[Tensors | RequestError]]:
        return time.perf_counter(), self._step.submit({"image": page})

    def close(self) -> None:
        """End the decoders."""
        self._step.close()


def read_decoding_seconds() -> float:
    """Return the CPU time used so far by the decoders of this process."""
    decoders = [each for each in psutil.Process().children() if "preprocess.decode_worker" in each.cmdline()]
    return sum(sum(decoder.cpu_times()[:2]) for decoder in decoders)
