"""Which workers of a cluster can take part in a run, as they come and go."""

from __future__ import annotations

import time

from distributed import Client

from citycover.compute.cluster.connect import WORKER_SECONDS, check_joined, workers_of
from citycover.compute.cluster.terms import Terms
from citycover.errors import MachineError


class Roster:
    """Asks each worker once whether it can take part."""

    def __init__(self, client: Client, terms: Terms) -> None:
        self.client, self.terms = client, terms
        self.unfit: dict[str, str] = {}
        """Why, by the addresses of those that cannot."""
        self.most = 0
        """Most workers that could at a time."""
        self._known: frozenset[str] = frozenset()
        self._alive = time.monotonic()

    def there(self) -> frozenset[str]:
        """Addresses of the workers that can take part now.

        Raises:
            MachineError: there has been none for too long.
        """
        there = workers_of(self.client)
        if joined := there - self._known:
            self.unfit |= check_joined(self.client, self.terms, joined)
        self._known = there
        fit = there - self.unfit.keys()
        now = time.monotonic()
        self._alive = now if fit else self._alive
        self.most = max(self.most, len(fit))
        if now - self._alive > WORKER_SECONDS:
            unfit = next((f" ({worker} is unfit: {why})" for worker, why in self.unfit.items()), "")
            raise MachineError(
                f"the cluster has had no worker for {WORKER_SECONDS} s{unfit}; start workers and run the "
                "same command again: finished blocks are kept"
            )
        return fit
