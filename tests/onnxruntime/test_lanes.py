"""Work side by side: bounded, told whether it is alone, and all of it done in the end."""

import os
import threading
from collections.abc import Iterator

import pytest
from lanes import Lanes
from priority import LOW_PRIORITY


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(2)
    yield lanes
    lanes.close()


class Work:
    """Runs until it is told to end."""

    def __init__(self) -> None:
        self.began, self.end = threading.Event(), threading.Event()
        self.was_alone: bool | None = None
        self.priority: int | None = None

    def __call__(self, is_alone: bool) -> None:
        self.was_alone = is_alone
        self.priority = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.began.set()
        assert self.end.wait(10)


def test_two_run_at_once_and_the_third_waits_for_a_free_lane(lanes: Lanes) -> None:
    first, second, third = Work(), Work(), Work()
    assert lanes.are_all_free
    lanes.start(first)
    assert first.began.wait(10)
    assert not lanes.are_all_free
    lanes.start(second)
    assert second.began.wait(10)
    waiting = threading.Thread(target=lanes.start, args=(third,))
    waiting.start()
    assert not third.began.wait(0.1)
    first.end.set()
    assert third.began.wait(10)
    assert (first.was_alone, second.was_alone, third.was_alone) == (True, False, False)
    second.end.set()
    third.end.set()
    waiting.join(10)


def test_wait_for_free_returns_once_a_lane_is_free(lanes: Lanes) -> None:
    works = [Work(), Work()]
    lanes.start(works[0])
    lanes.wait_for_free()
    lanes.start(works[1])
    waiting = threading.Thread(target=lanes.wait_for_free)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    works[1].end.set()
    waiting.join(10)
    assert not waiting.is_alive()
    works[0].end.set()


def test_small_work_passes_large_work_that_goes_at_low_priority(lanes: Lanes) -> None:
    large, small = [Work() for _ in range(3)], Work()
    for work in large:
        lanes.start(work, is_large=True)
    assert large[0].began.wait(10)
    assert large[1].began.wait(10)
    assert not large[2].began.wait(0.1)
    lanes.wait_for_free()
    lanes.start(small)
    assert small.began.wait(10)
    assert not small.was_alone
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert [work.priority for work in (*large[:2], small)] == [max(LOW_PRIORITY, own)] * 2 + [own]
    for work in (*large, small):
        work.end.set()


def test_closing_waits_for_the_work() -> None:
    lanes, work = Lanes(1), Work()
    lanes.start(work)
    closing = threading.Thread(target=lanes.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    work.end.set()
    closing.join(10)
    assert not closing.is_alive()
