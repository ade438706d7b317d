"""What the pool does with images, and with workers that die, hang or swell."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from preprocess.decode import decode_image
from preprocess.decode_pool import DecodePool, DecodeWorkerError
from preprocess.images import ImageError, ImageLimits, TiledImage, Tiling
from preprocess.tiles import cut_tiles
from tests.preprocess.image_files import GREY, draw_scene, encode, encode_png

GIB = 1024**3
IMAGES = [encode(draw_scene(width, 300), "PNG") for width in (100, 200, 300, 400, 500)]
BIG_IMAGE = encode_png((8000, 8000), 8, GREY, [bytes(8000)] * 8000)
"""Small as a file, yet decoded and resized for a second or so."""


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=2, time_limit_s=30, memory_limit_bytes=2 * GIB) as pool:
        yield pool


def preprocess_here(data: bytes) -> TiledImage:
    return cut_tiles(decode_image(data, ImageLimits()), Tiling())


def is_right(result: TiledImage | ImageError, data: bytes) -> bool:
    expected = preprocess_here(data)
    return (
        isinstance(result, TiledImage)
        and result.tiles == expected.tiles
        and np.array_equal(result.patches, expected.patches)
    )


def all_right(results: list[TiledImage | ImageError], images: list[bytes]) -> bool:
    return len(results) == len(images) and all(map(is_right, results, images))


def wait_until(condition, limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def read_cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def find_busy_worker(pool: DecodePool) -> int:
    before = {pid: read_cpu_ticks(pid) for pid in pool.worker_pids}
    busy: list[int] = []
    wait_until(lambda: busy.extend(pid for pid in before if read_cpu_ticks(pid) > before[pid] + 5) or busy)
    return busy[0]


def count_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_patches_equal_those_made_without_the_pool(pool):
    assert all_right(pool.preprocess(IMAGES), IMAGES)


def test_broken_images_fail_alone_with_their_reason(pool):
    broken = IMAGES[0][:-20]
    results = pool.preprocess([IMAGES[0], broken, b"<svg/>", b"", bytes(25 * 1024 * 1024 + 1), IMAGES[1]])
    assert is_right(results[0], IMAGES[0])
    assert is_right(results[5], IMAGES[1])
    codes = [result.code for result in results[1:5]]
    assert codes == ["image_invalid", "image_unsupported", "image_invalid", "image_too_large"]


def test_no_images_give_no_results(pool):
    assert pool.preprocess([]) == []


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_worker_killed_while_it_decodes_fails_its_image_only(pool, kill):
    with ThreadPoolExecutor() as threads:
        big = threads.submit(pool.preprocess, [BIG_IMAGE])
        busy = find_busy_worker(pool)
        neighbours = threads.submit(pool.preprocess, IMAGES)
        os.kill(busy, kill)
        (failed,) = big.result()
    assert isinstance(failed, ImageError)
    assert failed.code == "image_invalid"
    assert all_right(neighbours.result(), IMAGES)
    assert all_right(pool.preprocess(IMAGES), IMAGES)


def test_worker_that_hangs_fails_its_image_only():
    with DecodePool(workers=2, time_limit_s=3, memory_limit_bytes=GIB) as pool:
        hanging = pool.worker_pids[0]
        os.kill(hanging, signal.SIGSTOP)
        results = pool.preprocess(IMAGES)
        failed = [result for result in results if isinstance(result, ImageError)]
        assert [error.code for error in failed] == ["image_invalid"]
        assert sum(map(is_right, results, IMAGES)) == len(IMAGES) - 1
        assert hanging not in pool.worker_pids
        assert all_right(pool.preprocess(IMAGES), IMAGES)


def test_image_that_needs_too_much_memory_fails_alone():
    with DecodePool(workers=1, time_limit_s=30, memory_limit_bytes=GIB // 4) as pool:
        first, second = pool.preprocess([BIG_IMAGE, IMAGES[0]])
        assert isinstance(first, ImageError)
        assert first.code == "image_invalid"
        assert is_right(second, IMAGES[0])


def test_worker_killed_between_images_fails_none(pool):
    killed = pool.worker_pids
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert all_right(pool.preprocess(IMAGES), IMAGES)
    assert not set(killed) & set(pool.worker_pids)


def test_deaths_leave_no_files_shared_memory_or_processes():
    def measure() -> tuple[int, list[str]]:
        return count_open_files(), sorted(os.listdir("/dev/shm"))

    before = measure()
    with DecodePool(workers=2, time_limit_s=30, memory_limit_bytes=GIB) as pool:
        pool.preprocess(IMAGES)
        running = measure()
        for _ in range(3):
            for pid in pool.worker_pids:
                os.kill(pid, signal.SIGKILL)
            pool.preprocess(IMAGES)
        assert measure() == running
        pids = pool.worker_pids
    assert measure() == before
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_workers_end_with_the_process_of_the_pool():
    script = (
        "import time; from preprocess.decode_pool import DecodePool\n"
        f"pool = DecodePool(2, 30, {GIB})\n"
        "print(*pool.worker_pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "backends")}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as owner:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))


def test_worker_that_cannot_start_is_said_at_once():
    with pytest.raises(DecodeWorkerError):
        DecodePool(workers=1, time_limit_s=1, memory_limit_bytes=1024 * 1024)
