"""The short form of `make soak`: good and bad requests side by side on the real service."""

from pathlib import Path

import pytest

from bench.soak import soak
from tests.end_to_end.samples import TINY

pytestmark = [pytest.mark.triton, pytest.mark.slow]


def test_bad_requests_harm_neither_good_ones_nor_the_service(repository: Path, tmp_path: Path) -> None:
    rows = soak(repository, tmp_path, seconds=20, image_model=TINY)
    verdicts = {name: verdict for name, _, _, verdict in rows}
    del verdicts["MiB of memory"]  # which has not settled after seconds
    assert set(verdicts.values()) == {"ok"}, rows
    counts = {name: int(last) for name, _, last, _ in rows}
    assert counts["good requests"] > 20
    assert counts["bad requests"] > 20
