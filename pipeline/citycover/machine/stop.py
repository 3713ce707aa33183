"""What is asked to end: a whole, or one of its parts alone."""

from __future__ import annotations

import threading
import time

HEARD = 0.1
"""Seconds after which who waits for something else hears of a stop, at most."""


class PartialStop(threading.Event):
    """Set for a part alone, or with the whole: what ends one map is no stop of those that come after it.

    Args:
        whole: is heard, and never set.
    """

    def __init__(self, whole: threading.Event) -> None:
        super().__init__()
        self._whole = whole

    def is_set(self) -> bool:
        """Whether the part or the whole is to end."""
        return super().is_set() or self._whole.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is; False after so many seconds."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while not self.is_set() and (left := end - time.monotonic()) > 0:
            super().wait(min(left, HEARD))
        return self.is_set()
