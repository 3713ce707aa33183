"""What a passing trouble kept from being finished: tried again after a while, by whoever is free."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from citycover.compute import patience
from citycover.errors import MachineError
from citycover.plan.plan import Block

logger = logging.getLogger(__name__)


class Retries:
    """Blocks that wait."""

    def __init__(self) -> None:
        self._tries: Counter[tuple[int, int]] = Counter()
        """By the first block of what was tried."""
        self._waiting: list[tuple[float, Sequence[Block]]] = []
        """When they are due, in order."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, blocks: Sequence[Block], trouble: str) -> None:
        """Let blocks wait.

        Raises:
            MachineError: they were tried often enough.
        """
        first = blocks[0].index
        self._tries[first] += 1
        if self._tries[first] == patience.TRIES:
            raise MachineError(trouble)
        logger.warning("block %s is tried again in %.0f s: %s", first, patience.PAUSE, trouble)
        self._waiting.append((time.monotonic() + patience.PAUSE, blocks))

    def due(self) -> list[Sequence[Block]]:
        """Those that have waited for long enough; they are given once."""
        now = time.monotonic()
        due = [blocks for when, blocks in self._waiting if when <= now]
        self._waiting = [(when, blocks) for when, blocks in self._waiting if when > now]
        return due
