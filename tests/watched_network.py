"""A network in which every name that is looked up is seen, whatever library or child process does it.

`python -m tests.watched_network FILE COMMAND ...` runs a command in a network namespace that has only loopback. A DNS
server there knows no name and writes those that it is asked for to FILE.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.service import PROJECT

CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWUSER = 0x00020000, 0x40000000, 0x10000000  # sched.h
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18  # sys/mount.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, net/if.h
NOT_PERMITTED = 77
"""Status if this user may not create namespaces here."""

FILES = {
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    "/etc/nsswitch.conf": "hosts: files dns\n",  # no daemon outside the namespace
}

libc = ctypes.CDLL(None, use_errno=True)


def run_watched(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Run a command in a watched network, and return its exit status and the names that were looked up.

    Args:
        command: Program and arguments.
        environment: Environment of the command; this process's if None.
    """
    with tempfile.NamedTemporaryFile("r") as seen:
        watch = [sys.executable, "-m", "tests.watched_network", seen.name]
        done = subprocess.run([*watch, *command], cwd=PROJECT, env=environment, check=False)
        return done.returncode, sorted(set(seen.read().split()))


def main(seen: Path, command: Sequence[str]) -> int:
    """Run a command in a network of its own, and write the names that are looked up to `seen`."""
    try:
        enter_namespaces()
    except OSError as error:
        sys.stderr.write(f"no namespaces here: {error}\n")
        return NOT_PERMITTED
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer_queries, args=(server, seen), daemon=True).start()
    return subprocess.run(command, check=False).returncode


def enter_namespaces() -> None:
    """Leave the network and the mounts of this machine, and replace what says how names are looked up.

    Raises:
        OSError: This user may not.
    """
    user, group = os.geteuid(), os.getegid()
    check(libc.unshare(CLONE_NEWNET | CLONE_NEWNS | (CLONE_NEWUSER if user else 0)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    for path, content in FILES.items():
        with tempfile.NamedTemporaryFile("w") as replacement:
            replacement.write(content)
            replacement.flush()
            check(libc.mount(replacement.name.encode(), path.encode(), None, MS_BIND, None))


def check(status: int) -> None:
    """Raise the error of a C function that has failed.

    Raises:
        OSError: It has.
    """
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def answer_queries(server: socket.socket, seen: Path) -> None:
    """Answer every query that there is no such name (RFC 1035, section 4.1), and write the name down."""
    with seen.open("a") as file:
        while True:
            query, client = server.recvfrom(512)
            labels, at = [], 12
            while length := query[at]:
                labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
                at += 1 + length
            file.write(".".join(labels) + "\n")
            file.flush()
            server.sendto(query[:2] + b"\x81\x83" + query[4:], client)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
