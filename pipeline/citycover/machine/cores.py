"""The cores that this process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def usable_cores() -> float:
    """Cores that this process may use: those that it is bound to, as far as its container's quota goes."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return bound if quota == "max" else min(float(bound), int(quota) / int(period))
    except (OSError, ValueError):
        return bound


def threads_here() -> int:
    """Threads for work that shares well: one a core."""
    return max(1, int(usable_cores()))


_TURN = 1e-4
"""Seconds after which a thread gives the interpreter to another that waits for it."""


def short_turns() -> None:
    """Have threads hand the interpreter over sooner from now on: Python's own 5 ms are long for a GPU.

    The thread that tells it what to do asks for the interpreter eighty times a batch, beside threads that
    decode and compress; each time it would wait for a whole turn of theirs, and the GPU for it.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _TURN))


def most_threads() -> int:
    """Threads that a process may be asked for; libraries that compute do not survive far more of them."""
    return max(64, 4 * (os.cpu_count() or 1))


def most_processes() -> int:
    """Processes that this machine may be asked for: each holds its own libraries and its own network."""
    return max(16, 4 * threads_here())
