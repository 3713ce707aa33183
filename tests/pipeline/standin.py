"""Stand-ins for workers to import: a network that sleeps, and a scene of any size without a file."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from making import make_card
from numpy.typing import NDArray

from citycover.compute.cluster.compute import lease
from citycover.compute.cluster.dispatch import ClusterRun
from citycover.compute.cluster.terms import Work
from citycover.errors import MachineError
from citycover.files import remote
from citycover.files.store import Store
from citycover.geometry.window import Window
from citycover.job.watch import Watch
from citycover.machine.stages import Stages
from citycover.model.card import ModelCard
from citycover.model.form import Form
from citycover.model.precision import Precision
from citycover.plan.plan import Plan
from citycover.read.reader import Hole, Reader
from citycover.store.shard import ArraySpec, Layout
from citycover.store.store import WorkingStore
from citycover.store.work import WorkFolder

ARRAYS = (ArraySpec("classes", 0), ArraySpec("confidence", 0))


@dataclass
class PatternReader:
    """Pixels that are a function of their place: nothing is held."""

    shape: tuple[int, int]
    bands: int = 3
    dtype: np.dtype[Any] = np.dtype(np.uint8)  # noqa: RUF009 - a dtype is a value
    block: tuple[int, int] = (64, 64)

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        rows = np.arange(window.row, window.row_end, dtype=np.uint32)[:, None]
        cols = np.arange(window.col, window.col_end, dtype=np.uint32)[None]
        for band in range(self.bands):
            values[..., band] = ((rows * (7 + band)) ^ (cols * (5 + 2 * band))) & 255
        valid[...] = True
        return ()

    def close(self) -> None:
        pass


_: type[Reader] = PatternReader


def open_pattern(shape: tuple[int, int]) -> list[PatternReader]:
    return [PatternReader(shape)]


@dataclass(frozen=True)
class StandIn:
    """Makes a network that takes its time, as a GPU does: the processor is free meanwhile."""

    card: ModelCard
    seconds: float = 0.0
    """A batch."""
    deadly: int | None = None
    """The process dies at a window whose first pixel has this number in its first band."""
    batches: int | None = None
    """The process dies after so many."""
    value: float | None = None
    """Given instead of every score."""
    once: tuple[str, Path] | None = None
    """What befalls the first window that finds the file there, and takes it away: `broken`, a GPU that fails;
    `stale`, a drive that is lost; `hangs`, a kernel that does not end."""
    held: tuple[int, Path] | None = None
    """The process that waits after some batches, for as long as the file is there, a minute at most."""

    def __call__(self, device: torch.device, _stop: threading.Event | None = None) -> SleepingNetwork:
        if not _last or (_last[0].standin, _last[0].device) != (self, device):
            _last[:] = [SleepingNetwork(self.card, device, self)]
        return _last[0]


@dataclass
class SleepingNetwork:
    card: ModelCard
    device: torch.device
    standin: StandIn
    batches: int = 0

    def at(self, precision: Precision, form: Form = "torchscript") -> SleepingNetwork:
        return self

    def __call__(self, windows: Sequence[torch.Tensor]) -> torch.Tensor:
        image = windows[0]
        if self.standin.deadly is not None and (image[:, 0, 0, 0] == self.standin.deadly).any():
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        if self.batches == self.standin.batches:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.standin.held is not None and self.batches > _BEFORE_HELD:
            _wait_for(*self.standin.held)
        if self.standin.once is not None:
            _befall(*self.standin.once)
        if self.standin.seconds:
            time.sleep(self.standin.seconds)
        x = image[:, :3].float() / 64
        x = x + torch.nn.functional.avg_pool2d(x, 5, 1, 2)
        if self.standin.value is not None:
            x.fill_(self.standin.value)
        return torch.cat([x, x[:, :1] - x[:, 1:2], x[:, 2:] * x[:, 1:2] / 3], 1)


_last = list[SleepingNetwork]()
"""The one that this process keeps, as it keeps a network."""


_BEFORE_HELD = 5


def _wait_for(process: int, sign: Path) -> None:
    end = time.monotonic() + 60
    while os.getpid() == process and sign.exists():
        time.sleep(0.02)
        if time.monotonic() > end:
            sign.unlink(missing_ok=True)


def _befall(what: str, sign: Path) -> None:
    try:
        sign.unlink()
    except FileNotFoundError:
        return
    if what == "broken":
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")
    if what == "stale":
        raise MachineError("the network drive was lost") from OSError(errno.ESTALE, "stale")
    time.sleep(3600)


def standin_card(window: int = 48, trim: int = 4, feather: int = 4) -> ModelCard:
    return make_card(window, trim, feather)


def make_store(place: Store, plan: Plan, cell: tuple[int, int] | None = None) -> WorkingStore:
    layout = Layout(plan.shape, plan.block_shape, cell or plan.block_shape)
    return WorkingStore.create(place, layout, ARRAYS, {"plan": plan.identity})


def run_on(
    client: Any,
    folder: WorkFolder,
    plan: Plan,
    standin: StandIn,
    watch: Watch | None = None,
    kind: type[ClusterRun] = ClusterRun,
    versions: tuple[tuple[str, str], ...] = (),
) -> ClusterRun:
    """The unfinished blocks of a store, on a cluster."""
    store = WorkingStore.open(folder.store)
    with lease(folder) as held:
        size, terms = (plan.y.size, plan.x.size), replace(held, versions=versions)
        work = Work(
            terms, plan, standin, partial(open_pattern, size), folder.seen_from_afar, device="cpu", threads=1
        )
        run = kind(client, work, watch or Watch(), Stages())
        run.compute(set(store.finished()))
    return run


def ask_again(times: int) -> int:
    """Let this process ask a store that is away so many times more; returns how many it was before."""
    before = remote.RETRIES["max_retries"]
    remote.RETRIES["max_retries"] = times
    return before
