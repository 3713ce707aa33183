"""Which workers of a cluster can take part in a run, as they come and go."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future
from typing import Any

from distributed import Client

from citycover.compute.cluster.connect import WORKER_SECONDS, ask_worker, obstacles, workers_of
from citycover.compute.cluster.terms import Terms
from citycover.errors import MachineError


class Roster:
    """Asks each worker once whether it can take part, and waits for none: one may be slow, or hang."""

    def __init__(self, client: Client, terms: Terms) -> None:
        self.client, self.terms = client, terms
        self.unfit: dict[str, str] = {}
        """Why, by the addresses of those that cannot."""
        self.most = 0
        """Most workers that could at a time."""
        self._answered: set[str] = set()
        self._asked: dict[str, Future[dict[str, Any]]] = {}
        """Those that have not answered."""
        self._alive = time.monotonic()

    def there(self) -> frozenset[str]:
        """Addresses of the workers that have said that they can take part.

        Raises:
            MachineError: there has been none for too long.
        """
        there = workers_of(self.client)
        for worker in there - self._answered - self.unfit.keys() - self._asked.keys():
            self._asked[worker] = ask_worker(self.client, self.terms, worker)
        for worker in [*self._asked]:
            if worker not in there:
                self._asked.pop(worker).cancel()
            elif self._asked[worker].done():
                self._note(worker, self._asked.pop(worker))
        fit = there & (self._answered - self.unfit.keys())
        self.most = max(self.most, len(fit))
        self._check_alive(there, fit)
        return fit

    def leave(self) -> None:
        """Wait for no answer any more."""
        for asked in self._asked.values():
            asked.cancel()

    def _note(self, worker: str, asked: Future[dict[str, Any]]) -> None:
        """Learn from an answer; where the connection broke there is none, and the worker is asked again."""
        with contextlib.suppress(OSError, TimeoutError):
            answer = asked.result()[worker]
            if isinstance(answer, OSError | TimeoutError):
                return
            self.unfit |= obstacles({worker: answer})
            self._answered.add(worker)

    def _check_alive(self, there: frozenset[str], fit: frozenset[str]) -> None:
        now = time.monotonic()
        self._alive = now if fit else self._alive
        if now - self._alive > WORKER_SECONDS:
            silent = dict.fromkeys(sorted(there & self._asked.keys()), "it does not answer")
            unfit = next((f" ({one} is unfit: {why})" for one, why in (self.unfit | silent).items()), "")
            raise MachineError(
                f"the cluster has had no worker for {WORKER_SECONDS} s{unfit}; start workers and run the "
                "same command again: finished blocks are kept"
            )
