"""Runs a program that gets SIGTERM when its parent dies: `python run_tied.py PARENT_PID PROGRAM [ARGUMENT ...]`.

It runs between fork and exec, in a process of its own: Python code in a fork of a process with threads, such as gRPC's,
can crash.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); the setting survives exec

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # the parent died before the line above
        sys.exit(1)
    os.execve(sys.argv[2], sys.argv[2:], os.environ)  # noqa: S606 - that is what it is for
