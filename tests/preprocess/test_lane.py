import os
import threading

import pytest

from preprocess.lane import MAX_INLINE_BYTES, NICENESS, Lane, find_large


@pytest.mark.parametrize(
    ("sizes_bytes", "large"),
    [
        ([], []),
        ([10, MAX_INLINE_BYTES - 10], []),
        ([MAX_INLINE_BYTES, 10], [0]),
        ([4_000_000, 10, 50_000, 30_000], [2, 0]),
        ([40_000, 40_000, 40_000], [1, 2]),
    ],
)
def test_large_requests_are_those_that_do_not_fit_beside_the_small(sizes_bytes: list[int], large: list[int]) -> None:
    assert find_large(sizes_bytes) == large


def test_tasks_run_in_order_at_low_priority_until_the_lane_is_closed() -> None:
    lane, may_run = Lane(), threading.Event()
    ran: list[int] = []
    lane.start(lambda: ran.append(may_run.wait(10)))
    lane.start(lambda: ran.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert ran == []
    may_run.set()
    lane.close()
    assert ran == [True, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))]
