"""Processor time: texts that somebody waits for go before pages and bulk."""

from __future__ import annotations

import os
import threading

LOW_PRIORITY = 5
"""Niceness of what may wait: a third of the processor time of the others, where there is not enough for all."""


def lower_priority() -> None:
    """Lower that of the calling thread, and of those that it starts from now on."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, max(LOW_PRIORITY, os.getpriority(os.PRIO_PROCESS, thread)))
