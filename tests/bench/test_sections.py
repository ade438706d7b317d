import pytest

from bench.results import Sample
from bench.sections import select_slices
from bench.workloads import load_sentences

SLICES = [(items, Sample(items, 1.0, 2.0, 1)) for items in (400, 900, 5_000, 12_000)]


@pytest.mark.parametrize(
    ("start", "end", "selected"),
    [(0, 1_000, [400, 900]), (1_000, 10_000, [5_000]), (10_000, 11_000, [12_000])],
    ids=["several", "one", "the first after the start"],
)
def test_slices_of_a_long_run_are_selected_by_the_items_before_their_end(
    start: int, end: int, selected: list[int]
) -> None:
    assert [sample.items_per_s for sample in select_slices(SLICES, start, end)] == selected


def test_int8_is_compared_over_a_hundred_sentences() -> None:
    assert len(set(load_sentences())) >= 100
