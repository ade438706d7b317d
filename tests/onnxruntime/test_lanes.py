import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from graph import MAX_DUPLICATED_WEIGHTS_BYTES, count_lanes
from lanes import LOW_PRIORITY_NICENESS, Lanes

from tests.onnxruntime.onnx_models import model_config, write_model


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(2)
    yield lanes
    lanes.close()


class Task:
    """Runs until its `end` is set."""

    def __init__(self) -> None:
        self.began, self.end = threading.Event(), threading.Event()
        self.was_alone: bool | None = None
        self.niceness: int | None = None

    def __call__(self, is_alone: bool) -> None:
        self.was_alone = is_alone
        self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.began.set()
        assert self.end.wait(10)


def test_two_tasks_run_at_once_and_the_third_waits_for_a_free_lane(lanes: Lanes) -> None:
    first, second, third = Task(), Task(), Task()
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
    tasks = [Task(), Task()]
    lanes.start(tasks[0])
    lanes.wait_for_free()
    lanes.start(tasks[1])
    waiting = threading.Thread(target=lanes.wait_for_free)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    tasks[1].end.set()
    waiting.join(10)
    assert not waiting.is_alive()
    tasks[0].end.set()


def test_small_tasks_overtake_large_ones_which_have_low_priority(lanes: Lanes) -> None:
    large, small = [Task() for _ in range(3)], Task()
    for task in large:
        lanes.start(task, is_large=True)
    assert large[0].began.wait(10)
    assert large[1].began.wait(10)
    assert not large[2].began.wait(0.1)
    lanes.wait_for_free()
    lanes.start(small)
    assert small.began.wait(10)
    assert not small.was_alone
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert [task.niceness for task in (*large[:2], small)] == [max(LOW_PRIORITY_NICENESS, own)] * 2 + [own]
    for task in (*large, small):
        task.end.set()


def test_closing_waits_for_the_tasks() -> None:
    lanes, task = Lanes(1), Task()
    lanes.start(task)
    closing = threading.Thread(target=lanes.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    task.end.set()
    closing.join(10)
    assert not closing.is_alive()


@pytest.mark.parametrize(("cores", "lanes"), [(1, 2), (2, 2), (11, 2), (16, 4), (128, 8)])
def test_lanes_follow_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, lanes: int) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert count_lanes(write_model(tmp_path), model_config()) == lanes


def test_lanes_follow_the_threads_and_are_few_for_large_weights(tmp_path: Path) -> None:
    path, config = write_model(tmp_path), {"parameters": {"intra_op_thread_count": {"string_value": "16"}}}
    assert count_lanes(path, config) == 4
    with (path.parent / "model.onnx.data").open("wb") as weights:
        weights.truncate(MAX_DUPLICATED_WEIGHTS_BYTES)  # with the graph itself, a little more
    assert count_lanes(path, config) == 2
