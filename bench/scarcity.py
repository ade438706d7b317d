"""A service that runs out of shared memory, disk or descriptors, or is started without enough of them."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bench.errors import BenchError, ServiceFailedError
from bench.faults import Fault, FaultyService
from bench.observations import Observation, observe
from bench.traffic import Traffic, make_bodies
from launcher.settings import STAND_IN, TEXT_MODEL

DEV_SHM = "/dev/shm"  # noqa: S108
SHARED_MEMORY = "size=256m"
TOO_LITTLE_SHARED_MEMORY = "size=48m"
DISK = "size=8m"
FULL_DISK = "size=16k"

DESCRIPTORS = 256
TOO_FEW_DESCRIPTORS = 32


def fill_shared_memory(repository: Path, folder: Path) -> Observation:
    """Fill `/dev/shm` under a running service, and empty it again."""
    fault = Fault(f"{DEV_SHM} full for 5 s", partial(fill_for_a_while, path=Path(DEV_SHM, "filler")))
    with (
        FaultyService(repository, folder, with_tmpfs(DEV_SHM, SHARED_MEMORY)) as service,
        Traffic(service.url, make_bodies(TEXT_MODEL, STAND_IN, images=8)) as traffic,
    ):
        return observe(service, traffic, fault)


def start_without_shared_memory(repository: Path, folder: Path) -> Observation:
    """Start under a `/dev/shm` that is too small: the launcher says so and exits."""
    service = FaultyService(repository, folder, with_tmpfs(DEV_SHM, TOO_LITTLE_SHARED_MEMORY))
    return observe_refusal("too little shared memory", service, "MiB free")


def fill_disk(repository: Path, folder: Path) -> Observation:
    """Fill the disk of the logs under a running service, and empty it again: nobody notices."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    fault = Fault("log disk full for 5 s", partial(fill_for_a_while, path=logs / "filler"), 0.0, spares_texts=True)
    with (
        FaultyService(repository, folder, with_tmpfs(str(logs), DISK)) as service,
        Traffic(service.url, make_bodies(TEXT_MODEL, STAND_IN)) as traffic,
    ):
        return observe(service, traffic, fault)


def start_without_disk(repository: Path, folder: Path) -> Observation:
    """Start on a disk that is full: the launcher says so and exits."""
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    prefix = with_tmpfs(str(state), FULL_DISK)
    settings = {"BUILD_DIR": str(state)}
    return observe_refusal(
        "full disk", FaultyService(repository, folder, prefix, settings), "cannot be written: No space left on device"
    )


def exhaust_descriptors(repository: Path, folder: Path) -> Observation:
    """Open more connections than the service may have descriptors: requests are served all the same."""
    service = FaultyService(repository, folder, ["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
    connections: list[socket.socket] = []

    def connect(service: FaultyService) -> None:
        address = urlsplit(service.url)
        for _ in range(2 * DESCRIPTORS):
            with suppress(OSError):
                connections.append(socket.create_connection((address.hostname, address.port), timeout=5))

    fault = Fault(f"{2 * DESCRIPTORS} connections, {DESCRIPTORS} descriptors", connect, 0.0, spares_texts=True)
    try:
        with service, Traffic(service.url, make_bodies(TEXT_MODEL, STAND_IN)) as traffic:
            return observe(service, traffic, fault)
    finally:
        for connection in connections:
            connection.close()


def start_without_descriptors(repository: Path, folder: Path) -> Observation:
    """Start with too few descriptors: the launcher says so and exits."""
    prefix = ["prlimit", f"--nofile={TOO_FEW_DESCRIPTORS}:{TOO_FEW_DESCRIPTORS}"]
    return observe_refusal("too few descriptors", FaultyService(repository, folder, prefix), "open files")


def observe_refusal(fault: str, service: FaultyService, message: str) -> Observation:
    """Start a service that must not start, and look for the message that says why."""
    started_s = time.monotonic()
    complaint = ""
    try:
        with service:
            complaint = "it started"
    except ServiceFailedError as error:
        if "Traceback" in str(error) or message not in str(error):
            complaint = "the message does not say so"
    return Observation(fault, recovery_s=time.monotonic() - started_s, complaint=complaint)


def fill_for_a_while(service: FaultyService, path: Path) -> None:
    """Fill the file system, as the service sees it, that a path belongs to, for some seconds."""
    filler = Path(f"/proc/{service.find('triton').pid}/root", *path.parts[1:])
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1M"], capture_output=True, check=False)  # noqa: S607
    time.sleep(5)
    filler.unlink()


def with_tmpfs(folder: str, options: str) -> list[str]:
    """Return words before a command that give it an empty file system of its own at a folder.

    Raises:
        BenchError: This machine does not allow it.
    """
    mount = f'mount -t tmpfs -o {options} tmpfs {shlex.quote(folder)} && exec "$@"'
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        raise BenchError("this user may not mount a file system of its own")
    return prefix
