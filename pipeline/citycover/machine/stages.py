"""Stage timers: where the wall time of a run went. Always on; they end in run.json and in the summary."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SWEEP_STAGES = ("wait", "copy", "forward", "blend", "mask", "device", "handover")
"""Stages of the inference thread: together they are the wall time of the sweep."""

ASIDE = ("wait", "copy", "forward", "blend", "mask")
"""Those of them that the device and other threads do while the inference thread waits for the `device`."""

SIDE_STAGES = ("read", "encode")
"""Stages of the reader and writer threads, beside the inference thread."""


class Stages:
    """Seconds by stage name, added up over threads."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._queues: dict[str, Callable[[], int]] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add the time that the body takes to `stage`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begin)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to `stage`."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self) -> dict[str, float]:
        """A copy of what was added up so far."""
        with self._lock:
            return dict(self._seconds)

    def merge(self, seconds: dict[str, float]) -> None:
        """Add what another process or an earlier part of the run measured."""
        for stage, value in seconds.items():
            self.add(stage, value)

    def follow(self, stage: str, depth: Callable[[], int]) -> None:
        """From now on `depth` tells how many things wait for `stage`."""
        self._queues[stage] = depth

    def waiting(self) -> dict[str, int]:
        """How many things wait for each stage at this moment."""
        return {stage: depth() for stage, depth in dict(self._queues).items()}
