"""How a run is followed and stopped from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from citycover.machine.stages import Stages
from citycover.plan.plan import Block, Plan


@dataclass(frozen=True, slots=True)
class Watch:
    """How a run is followed and stopped from outside."""

    started: Callable[[Plan, int], None] = lambda _plan, _done: None
    """Called once with the settled plan and the number of output pixels that an earlier run finished."""
    predicted: Callable[[int], None] = lambda _windows: None
    """Called with the number of windows that went by, run or skipped, after each row of them."""
    advanced: Callable[[Block], None] = lambda _block: None
    """Called after each finished block, from the writer's thread."""
    timing: Callable[[Stages], None] = lambda _stages: None
    """Called once with the clocks of the run, which go on as it does."""
    publishing: Callable[[], None] = lambda: None
    """Called when all blocks are there."""
    connected: Callable[[str], None] = lambda _line: None
    """Called with a line about the cluster, if there is one: workers, dashboard, logs."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it, and the run ends after the batch in hand with StoppedError."""


def with_share(watch: Watch, tell: Callable[[float], object]) -> Watch:
    """A watch of one run that is also told which share of the windows went by in it, 0 to 1."""
    total, went = 1, 0

    def started(plan: Plan, done: int) -> None:
        nonlocal total
        total = max(1, plan.windows)
        watch.started(plan, done)

    def predicted(windows: int) -> None:
        nonlocal went
        went += windows
        tell(min(1.0, went / total))
        watch.predicted(windows)

    return replace(watch, started=started, predicted=predicted)
