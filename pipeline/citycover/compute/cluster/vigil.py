"""Watches over the workers that compute: one that gives no sign is started anew, for a kernel may hang."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distributed import Client, Future

from citycover.compute.cluster.terms import Report
from citycover.plan.plan import Block

logger = logging.getLogger(__name__)

FIRST_SECONDS = 3600
"""How long a worker may give no sign before it is known how long one takes: a network is loaded, and a row of
windows of a large one takes minutes on a processor."""

SILENT_SECONDS = 600
"""How long it may at least once that is known."""

_SILENT_TIMES = 20
"""How many times as long as between signs in the mean."""

_KNOWN = 6
"""Signs after which the mean is one."""

_RESTART_SECONDS = 30
"""How long a worker may take to end and come again. Its nanny gives it 4 s to end by itself, then kills it;
given up before that, it would tell its nanny not to start another."""


@dataclass
class Flying:
    """A piece in the hands of the cluster."""

    future: Future[Report]
    blocks: Sequence[Block]
    bound_to: frozenset[str]
    """Addresses of who may compute it; empty: whoever is there."""
    worker: str | None = None
    """Address of who has begun it, as far as is known."""
    heard: float = 0.0
    """When the last sign came; seconds of `time.monotonic`."""
    asked: bool = False
    """To hand back what it has not begun."""


class Vigil:
    """Knows how long workers of a run are silent as a rule."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._gaps, self._seconds = 0, 0.0

    def heard(self, flight: Flying, worker: str) -> None:
        """Note a sign of who computes a piece."""
        now = time.monotonic()
        if flight.worker == worker:
            self._gaps, self._seconds = self._gaps + 1, self._seconds + now - flight.heard
        else:
            flight.asked = False  # it went to another one
        flight.worker, flight.heard = worker, now

    def wake(self, flights: Iterable[Flying], there: frozenset[str]) -> None:
        """Start anew, of the workers that are there, those that are silent for too long."""
        patience = float(FIRST_SECONDS)
        if self._gaps >= _KNOWN:
            patience = max(SILENT_SECONDS, _SILENT_TIMES * self._seconds / self._gaps)
        for flight in flights:
            silent = time.monotonic() - flight.heard
            if flight.worker in there and silent > patience:
                logger.warning("worker %s has given no sign for %.0f s: it is ended", flight.worker, silent)
                self._restart(flight.worker)
                flight.worker = None

    def _restart(self, worker: str) -> None:
        try:
            with contextlib.suppress(KeyError):  # it is gone
                self.client.restart_workers([worker], timeout=_RESTART_SECONDS, raise_for_error=False)
        except ValueError:  # nobody looks after it
            self.client.retire_workers([worker], close_workers=True, remove=True)
