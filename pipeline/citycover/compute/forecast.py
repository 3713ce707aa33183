"""How long a run will take and what it will hold, before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from citycover.compute.choices import Settled, settle
from citycover.compute.trials import measure_speed
from citycover.job.job import Job
from citycover.machine.memory import peak_rss
from citycover.model.predictor import Predictor
from citycover.plan.cost import BESIDE


@dataclass(frozen=True, slots=True)
class Forecast:
    """A settled run, and what a trial promises of it."""

    settled: Settled
    alone: float
    """Seconds of one process for the whole plan."""
    engine_memory: int
    """Bytes that a process holds beside program and network."""
    peak_memory: int
    """Bytes that a process holds at most, all counted."""
    workers: int = 1
    """Processes that share the work."""

    @property
    def seconds(self) -> float:
        """Wall time of the run, its beginning and end left out."""
        return self.alone / self.workers


def forecast(job: Job, predictor: Predictor) -> Forecast:
    """Settle a job and run its network for a moment; see `settle`."""
    settled = settle(job, predictor)
    speed = measure_speed(settled.plan, predictor.at(settled.plan.precision, settled.plan.form))
    engine = job.totals(settled.plan).memory.total
    seconds = job.scene.passes * speed.seconds(settled.plan)
    return Forecast(settled, seconds, engine, peak_rss() + engine + BESIDE)
