"""A clock for work that several threads share: it goes on when each of them has one piece in hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")


class Lockstep:
    """Pieces of one round each. Fewer threads at once than are meant never end a round: the work fails."""

    def __init__(self, threads: int) -> None:
        self.rounds = self.most = self._inside = 0
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(threads, action=self._tick, timeout=60)

    def _tick(self) -> None:
        self.rounds += 1

    def slow(self, function: Callable[..., R]) -> Callable[..., R]:
        """The same, a round long."""

        def slowed(*given: object, **named: object) -> R:
            with self._lock:
                self._inside += 1
                self.most = max(self.most, self._inside)
            self._barrier.wait()
            with self._lock:
                self._inside -= 1
            return function(*given, **named)

        return slowed
