"""How long a short text takes while seven-tile pages stream through the same model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from bench.contenders.http import HttpContender
from bench.pages import PNG_PAGES
from bench.results import Load, Measurement, Sample
from bench.rounds import Contender, alternate
from bench.workbench import Workbench
from bench.workloads import SHORT

NAME = "interference"
PAGE_LOAD = Load(PNG_PAGES, 1, 2)


def run(workbench: Workbench) -> list[Measurement]:
    """Measure one client with single texts, alone and beside two with pages."""
    texts = workbench.make_page_gateway("texts alone")
    pages = workbench.make_page_gateway("pages")
    contenders: list[Contender] = [texts, TextsBesidePages(workbench.make_page_gateway("texts"), pages)]
    return alternate(NAME, contenders, Load(SHORT, 1, 1), workbench.settings.rounds)


class TextsBesidePages:
    """Texts timed while pages stream; both end about together."""

    name = "texts beside pages"

    def __init__(self, texts: HttpContender, pages: HttpContender) -> None:
        """Prepare nothing yet."""
        self._texts, self._pages = texts, pages

    def measure(self, load: Load) -> Sample:
        """Time the texts; the first time the pages warm up alone."""
        self._texts.warm_up(load)
        self._pages.warm_up(PAGE_LOAD)
        with ThreadPoolExecutor(1) as threads:
            streaming = threads.submit(self._pages.measure, PAGE_LOAD)
            sample = self._texts.measure(load)
            streaming.result()
        return sample
