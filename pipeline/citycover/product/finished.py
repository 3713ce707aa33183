"""A run whose blocks are all there: what publishing needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from citycover.engine.seams import Seams
from citycover.job.job import Job
from citycover.machine.stages import Stages
from citycover.plan.plan import Plan
from citycover.read.reader import Hole
from citycover.store.store import WorkingStore


@dataclass(frozen=True)
class Finished:
    """A run whose blocks are all in the store."""

    job: Job
    plan: Plan
    store: WorkingStore
    device: str
    stages: Stages
    begin: float
    """`time.perf_counter()` when the run began."""
    seams: Seams | None = None
    """None: not asked for."""
    workers: int = 1
    """Processes that computed."""
    worker_peak_rss: int = 0
    """Bytes of memory that one of them held at most, if they are other processes than this one."""

    @cached_property
    def holes(self) -> tuple[Hole, ...]:
        """All holes that the ledger knows, each once."""
        records = self.store.finished().values()
        return tuple(dict.fromkeys(hole for record in records for hole in record.holes))

    @cached_property
    def written_windows(self) -> dict[str, int]:
        """Windows of the whole run, those of earlier processes too."""
        total = {"run": 0, "skipped": 0}
        for record in self.store.finished().values():
            for name in total:
                total[name] += record.counts.get(name, 0)
        return total
