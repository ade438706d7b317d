"""The order in which files of several requests are decoded."""

import time

import numpy as np
import pytest

from preprocess.decode_queue import DecodeBatch, DecodeJob, DecodeQueue, QueueClosedError
from preprocess.items import ExpiredError, ImageFile
from preprocess.tiles import TiledImage

IMAGE, PAGE = ImageFile(b"image"), ImageFile(b"pdf", page=1)
RESULT = TiledImage(np.zeros((1, 3072), np.uint8), 1)


def take(queue: DecodeQueue, *, takes_heavy: bool = True) -> DecodeJob:
    job = queue.take(takes_heavy=takes_heavy)
    assert job is not None
    return job


def add(queue: DecodeQueue, *files: ImageFile, timeout_s: float = 60) -> DecodeBatch:
    batch = DecodeBatch(files, time.monotonic() + timeout_s)
    queue.add(batch)
    return batch


def test_requests_take_turns() -> None:
    queue = DecodeQueue()
    large, small, pair = add(queue, *[IMAGE] * 4), add(queue, IMAGE), add(queue, IMAGE, IMAGE)
    order = [take(queue).batch for _ in range(7)]
    assert [[large, small, pair].index(batch) for batch in order] == [0, 1, 2, 0, 2, 0, 0]


def test_files_that_take_long_are_left_to_workers_that_take_them() -> None:
    queue = DecodeQueue()
    pages, images = add(queue, PAGE, PAGE), add(queue, IMAGE, IMAGE, IMAGE)
    assert [take(queue, takes_heavy=False).batch for _ in range(2)] == [images, images]
    assert [take(queue).batch for _ in range(3)] == [pages, images, pages]


def test_an_image_that_turns_out_to_take_long_is_put_back() -> None:
    queue = DecodeQueue()
    slow = add(queue, IMAGE)
    job = take(queue, takes_heavy=False)
    queue.defer(job)
    quick = add(queue, IMAGE)
    assert take(queue, takes_heavy=False).batch is quick
    assert take(queue) is job and job.batch is slow


def test_files_of_a_request_whose_time_is_over_are_skipped() -> None:
    queue = DecodeQueue()
    expired, valid = add(queue, IMAGE, IMAGE, timeout_s=0), add(queue, IMAGE)
    assert take(queue).batch is valid
    with pytest.raises(ExpiredError, match="request timeout expired"):
        expired.future.result(0)


def test_a_request_that_failed_is_skipped() -> None:
    queue = DecodeQueue()
    failed, valid = add(queue, IMAGE, IMAGE), add(queue, IMAGE)
    take(queue).batch.fail(RuntimeError("broken"))
    assert take(queue).batch is valid
    failed.put(0, RESULT)
    with pytest.raises(RuntimeError, match="broken"):
        failed.future.result(0)


def test_results_have_the_order_of_the_files() -> None:
    batch = DecodeBatch([IMAGE, IMAGE])
    other = TiledImage(RESULT.patches, 2)
    batch.put(1, other)
    assert not batch.future.done()
    batch.put(0, RESULT)
    assert batch.future.result(0) == [RESULT, other]


def test_a_closed_queue_fails_what_waits_and_what_comes() -> None:
    queue = DecodeQueue()
    before = add(queue, IMAGE)
    queue.close()
    assert queue.take(takes_heavy=True) is None
    for batch in (before, add(queue, IMAGE)):
        with pytest.raises(QueueClosedError):
            batch.future.result(0)
