"""Page images through the gateway, alone and among texts."""

from __future__ import annotations

from bench.pages import JPEG_PAGES, PAGES_AND_TEXTS, PNG_PAGES
from bench.results import Load, Measurement
from bench.rounds import alternate
from bench.workbench import Workbench

NAME = "pages"
CLIENTS = 4


def run(workbench: Workbench) -> list[Measurement]:
    """Measure single pages of both kinds, then a page and seven texts in one request."""
    gateway = workbench.make_page_gateway("gateway")
    loads = [
        Load(PNG_PAGES, 1, 1),
        Load(PNG_PAGES, 1, CLIENTS),
        Load(JPEG_PAGES, 1, CLIENTS),
        Load(PAGES_AND_TEXTS, 8, CLIENTS),
    ]
    return [each for load in loads for each in alternate(NAME, [gateway], load, workbench.settings.rounds)]
