"""The pool with valid and broken images, and with workers that die, hang or use too much memory."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from preprocess.decode import decode_image
from preprocess.decode_pool import DecodePool
from preprocess.decode_process import DecodeWorkerError, find_interpreter
from preprocess.items import ExpiredError, ImageError, ImageFile
from preprocess.settings import ImageLimits, Tiling
from preprocess.tiles import TiledImage, cut_tiles
from tests.pdf_files import fill, make_pdf
from tests.preprocess.image_files import GREY, draw_scene, encode, encode_png
from tests.service import wait_until

GIB = 1024**3
IMAGES = [encode(draw_scene(width, 300), "PNG") for width in (100, 200, 300, 400, 500)]
BIG_IMAGE = encode_png((8000, 8000), 8, GREY, [bytes(8000)] * 8000)
"""A small file that takes about a second to decode and resize."""
HUGE_IMAGE = encode(Image.new("RGB", (6000, 6000)), "WEBP", lossless=True, quality=0, method=0)
"""A tiny file that takes about two seconds."""


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=2, time_limit_s=30, memory_limit_bytes=2 * GIB) as pool:
        yield pool


def preprocess(pool: DecodePool, images: Sequence[bytes]) -> list[TiledImage | ImageError]:
    return pool.preprocess(list(map(ImageFile, images)))


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


def find_workers(owner: int | None = None) -> list[int]:
    """Return the process ids of the workers that a process, by default this one, has started."""
    children = psutil.Process(owner).children()
    return [child.pid for child in children if "preprocess.decode_worker" in child.cmdline()]


def read_cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def find_busy_worker() -> int:
    before = {pid: read_cpu_ticks(pid) for pid in find_workers()}
    busy: list[int] = []

    def is_any_busy() -> bool:
        busy.extend(pid for pid in before if read_cpu_ticks(pid) > before[pid] + 5)
        return bool(busy)

    wait_until(is_any_busy, 20)
    return busy[0]


def count_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_patches_equal_those_made_without_the_pool(pool):
    assert all_right(preprocess(pool, IMAGES), IMAGES)


def test_broken_images_fail_alone_with_their_reason(pool):
    broken = IMAGES[0][:-20]
    results = preprocess(pool, [IMAGES[0], broken, b"<svg/>", b"", bytes(25 * 1024 * 1024 + 1), IMAGES[1]])
    assert is_right(results[0], IMAGES[0])
    assert is_right(results[5], IMAGES[1])
    codes = [result.code for result in results[1:5] if isinstance(result, ImageError)]
    assert codes == ["image_invalid", "image_unsupported", "image_invalid", "image_too_large"]


def test_pages_of_a_pdf_are_tiled_as_the_images_that_they_show(pool):
    document = make_pdf([fill(1, 0, 0), fill(0, 1, 0), fill(0, 0, 1)], 300, 200)
    results = pool.preprocess([ImageFile(document, 3), ImageFile(IMAGES[0]), ImageFile(document, 1)])
    assert is_right(results[1], IMAGES[0])
    assert results[1].pages == 0
    for result, colour in ((results[0], "blue"), (results[2], "red")):
        expected = cut_tiles(Image.new("RGB", (300, 200), colour), Tiling())
        assert (result.pages, result.tiles) == (3, expected.tiles)
        np.testing.assert_array_equal(result.patches, expected.patches)


def test_broken_pdfs_fail_alone_with_their_reason(pool):
    document = make_pdf([fill(1, 0, 0)])
    files = [ImageFile(document[:40], 1), ImageFile(document, 2), ImageFile(IMAGES[0], 1), ImageFile(b"", 1)]
    *broken, page = pool.preprocess([*files, ImageFile(document, 1)])
    assert [str(error) for error in broken] == [
        "pdf_invalid: the PDF is damaged",
        "pdf_invalid: the PDF has no page 2",
        "pdf_invalid: the PDF is damaged",
        "image_invalid: the image is empty",
    ]
    assert page.pages == 1


def test_pdf_that_never_ends_fails_alone():
    endless = make_pdf(["0 0 200 300 re f " * 1_000_000])
    with DecodePool(workers=2, time_limit_s=2, memory_limit_bytes=2 * GIB) as pool:
        failed, page = pool.preprocess([ImageFile(endless, 1), ImageFile(make_pdf([fill(1, 0, 0)]), 1)])
    assert str(failed) == "pdf_invalid: rendering the PDF failed or took too long"
    assert isinstance(page, TiledImage)


def test_workers_cannot_open_files_or_sockets(pool):
    for worker in find_workers():
        assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (0, 0)
    everything = [draw_scene(60, 40).convert(mode) for mode in ("RGB", "P", "L", "RGBA")]
    images = [encode(image, kind) for image in everything for kind in ("PNG", "WEBP", "GIF")]
    images += [encode(image.convert("CMYK"), "JPEG") for image in everything]
    assert all_right(preprocess(pool, images), images)


def test_slow_images_of_one_request_leave_a_worker_to_the_others(pool):
    slow = pool.submit([ImageFile(HUGE_IMAGE)] * 3)
    find_busy_worker()
    for image in IMAGES:
        assert is_right(pool.submit([ImageFile(image)]).result(60)[0], image)
    assert not slow.done()
    assert all(isinstance(result, TiledImage) for result in slow.result(60))


def test_requests_take_turns():
    with DecodePool(workers=1, time_limit_s=30, memory_limit_bytes=2 * GIB) as pool:
        many = pool.submit([ImageFile(BIG_IMAGE)] * 3)
        one = pool.submit([ImageFile(IMAGES[0])])
        assert is_right(one.result(60)[0], IMAGES[0])
        assert not many.done()
        assert all(isinstance(result, TiledImage) for result in many.result(60))


def test_work_stops_when_nobody_waits_any_more(pool):
    with pytest.raises(ExpiredError):
        pool.submit([ImageFile(HUGE_IMAGE)] * 1000, time.monotonic() + 0.5).result(30)
    assert all_right(preprocess(pool, IMAGES), IMAGES)


@pytest.mark.parametrize(("cost", "is_ended"), [(0, True), (10**9, False)])
def test_decoder_that_uses_the_processor_for_too_long_is_ended(cost, is_ended):
    script = (
        "import time; from preprocess.decode_worker import limit_cpu_time\n"
        f"limit_cpu_time({cost})\n"
        "while time.process_time() < 3: pass\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "backends")}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert ended.returncode == (-signal.SIGPROF if is_ended else 0)


def test_no_images_give_no_results(pool):
    assert preprocess(pool, []) == []


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGSEGV])
def test_worker_killed_while_it_decodes_fails_its_image_only(pool, kill):
    with ThreadPoolExecutor() as threads:
        big = threads.submit(preprocess, pool, [BIG_IMAGE])
        busy = find_busy_worker()
        neighbours = threads.submit(preprocess, pool, IMAGES)
        os.kill(busy, kill)
        (failed,) = big.result()
    assert isinstance(failed, ImageError)
    assert failed.code == "image_invalid"
    assert all_right(neighbours.result(), IMAGES)
    assert all_right(preprocess(pool, IMAGES), IMAGES)


def test_worker_that_hangs_fails_its_image_only():
    with DecodePool(workers=2, time_limit_s=3, memory_limit_bytes=GIB) as pool:
        hanging = find_workers()[0]
        os.kill(hanging, signal.SIGSTOP)
        results = preprocess(pool, IMAGES)
        failed = [result for result in results if isinstance(result, ImageError)]
        assert [error.code for error in failed] == ["image_invalid"]
        assert sum(map(is_right, results, IMAGES)) == len(IMAGES) - 1
        assert hanging not in find_workers()
        assert all_right(preprocess(pool, IMAGES), IMAGES)


def test_image_that_needs_too_much_memory_fails_alone():
    with DecodePool(workers=1, time_limit_s=30, memory_limit_bytes=GIB // 4) as pool:
        first, second = preprocess(pool, [BIG_IMAGE, IMAGES[0]])
        assert isinstance(first, ImageError)
        assert first.code == "image_invalid"
        assert is_right(second, IMAGES[0])


def test_worker_killed_between_images_fails_none(pool):
    killed = find_workers()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert all_right(preprocess(pool, IMAGES), IMAGES)
    workers = find_workers()
    assert len(workers) == 2
    assert not set(killed) & set(workers)


def test_deaths_leave_no_files_shared_memory_or_processes():
    def measure() -> tuple[int, list[str]]:
        shared = [name for name in os.listdir("/dev/shm") if not name.startswith("triton_")]  # other tests' servers
        return count_open_files(), sorted(shared)

    before = measure()
    with DecodePool(workers=2, time_limit_s=30, memory_limit_bytes=GIB) as pool:
        preprocess(pool, IMAGES)
        running = measure()
        for _ in range(3):
            for pid in find_workers():
                os.kill(pid, signal.SIGKILL)
            preprocess(pool, IMAGES)
        assert measure() == running
        pids = find_workers()
        assert len(pids) == 2
    assert measure() == before
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_workers_end_with_the_process_of_the_pool():
    script = (
        "import time; from preprocess.decode_pool import DecodePool\n"
        f"pool = DecodePool(2, 30, {GIB})\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "backends")}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        pids = find_workers(owner.pid)
        owner.kill()
    assert len(pids) == 2
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids), 20)


def test_worker_that_cannot_start_is_reported():
    with pytest.raises(DecodeWorkerError):
        DecodePool(workers=1, time_limit_s=1, memory_limit_bytes=1024 * 1024)


def test_interpreter_is_the_own_executable_if_that_is_python():
    assert find_interpreter(sys.executable) == sys.executable


@pytest.mark.parametrize("executable", ["/opt/tritonserver/backends/python/triton_python_backend_stub", "", None])
def test_interpreter_is_never_the_program_that_embeds_python(executable):
    found = find_interpreter(executable)
    version = subprocess.check_output([found, "-c", "import sys; print(*sys.version_info[:2])"], text=True)
    assert tuple(map(int, version.split())) == sys.version_info[:2]
