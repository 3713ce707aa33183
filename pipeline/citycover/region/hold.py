"""One run of a region, or of a part of it, at a time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from citycover.errors import HeldError, StoppedError
from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock

_PAUSE = 1.0
"""Seconds between two looks."""

_PATIENCE = 120.0
"""Seconds that a run has to end when another takes over."""


@contextlib.contextmanager
def hold(path: Path, policy: Literal["leave", "wait", "take"], stop: threading.Event) -> Iterator[None]:
    """Hold the lock of a region as long as the context.

    Args:
        path: of the lock.
        policy: where another run holds it: leave it alone, wait for its end, or end it (SIGTERM, so that it
            keeps what is finished) and go on.
        stop: set it to end the waiting.

    Raises:
        HeldError: another run holds it, and is left alone, or is on another host, or does not end.
        StoppedError: `stop` was set meanwhile.
    """
    lock = RunLock(path)
    with machine_errors(path):
        try:
            lock.acquire()
        except HeldError:
            if policy == "leave":
                raise
            _wait(lock, _end_holder(lock) if policy == "take" else None, stop)
    try:
        yield
    finally:
        lock.release()


def _end_holder(lock: RunLock) -> float:
    """Ask the run that holds a lock to end; returns when the patience is over, of the monotonic clock."""
    process, host = lock.holder or (0, "")
    if host != socket.gethostname() or not _is_citycover(process):
        raise HeldError(
            f"another run holds the region, process {process} on {host or 'a host that is not known'}, and "
            'cannot be ended from here; end it there, or give held = "wait"'
        )
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(process, signal.SIGTERM)
    return time.monotonic() + _PATIENCE


def _is_citycover(process: int) -> bool:
    """Whether a process is one of ours: a number that was written down may be another's by now."""
    try:
        return b"citycover" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def _wait(lock: RunLock, until: float | None, stop: threading.Event) -> None:
    while not stop.wait(_PAUSE):
        try:
            lock.acquire()
        except HeldError:
            if until is not None and time.monotonic() > until:
                raise
        else:
            return
    raise StoppedError
