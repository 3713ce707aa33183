"""A map as it is made, shown as progress and in the log."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from citycover_cli.logs import logger
from citycover_cli.output import note
from citycover_cli.progress import Progress

if TYPE_CHECKING:
    from citycover.job.watch import Watch
    from citycover.plan.plan import Block, Plan


def watch_map(progress: Progress, stop: threading.Event, quiet: bool) -> Watch:
    """Show how far a map is."""
    from citycover.job.watch import Watch

    follow = _Follower(progress)
    return Watch(
        started=follow.started,
        predicted=follow.predicted,
        advanced=follow.advanced,
        publishing=follow.publishing,
        connected=lambda line: None if quiet else note(f"citycover: {line}"),
        stop=stop,
    )


class _Follower:
    """Progress of a run: windows as they go by, blocks once they are safe."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.begin = progress, time.monotonic()
        self.earlier = self.pixels = 0.0
        self.total = self.per_window = 1.0

    def started(self, plan: Plan, done: int) -> None:
        self.total = float(plan.shape[0] * plan.shape[1])
        self.per_window = self.total / max(plan.windows, 1)
        self.earlier, self.begin = float(done), time.monotonic()
        logger.info(
            "%d x %d px in %d windows of %d x %d, redundancy %.2f, %s %s",
            *plan.shape, plan.windows, plan.y.window, plan.x.window, plan.redundancy, plan.form,
            plan.precision,
        )  # fmt: skip

    def predicted(self, windows: int) -> None:
        self.pixels += windows * self.per_window
        share = min(1.0, (self.earlier + self.pixels) / self.total)
        self.progress.update(0.99 * share, f"{self._speed():.1f} Mpx/s")

    def advanced(self, block: Block) -> None:
        facts = {"block": block.index, "mpx_per_s": round(self._speed(), 3)}
        logger.info("block %s done, %.1f Mpx/s", block.index, self._speed(), extra={"facts": facts})

    def _speed(self) -> float:
        """Mpx/s of output in this run."""
        return self.pixels / 1e6 / max(time.monotonic() - self.begin, 1e-9)

    def publishing(self) -> None:
        self.progress.update(0.99, "writing the product")
