"""Where finished blocks go: shards, then the ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.compute.patience import outwait
from citycover.compute.unread import blocks_to_read_again
from citycover.engine.canvas import FinishedBlock
from citycover.engine.input import WINDOWS
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.noise import Belief
from citycover.files.failures import machine_errors
from citycover.files.store import Store
from citycover.job.inputs import Inputs
from citycover.job.job import Job
from citycover.machine.cores import threads_here
from citycover.plan.layers import CHANGE, CHANGED
from citycover.plan.plan import CHUNK, Block, Plan
from citycover.scene.scene import Scene
from citycover.store.ledger import Records
from citycover.store.shard import ArraySpec, Layout
from citycover.store.store import WorkingStore
from citycover.store.work import WorkFolder, taken_over

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Computed:
    """All blocks are in the store."""

    plan: Plan
    device: str
    inputs: Inputs
    """What was read, as it was when the run began."""
    belief: Belief | None = None
    """How far the labels of the place were believed; None: there were none."""
    evidence: LabelEvidence | None = None
    workers: int = 1
    """Processes that computed."""
    peak_rss: int = 0
    """Bytes of memory that one of them held at most, if they are other processes than this one."""


def open_store(
    job: Job, folder: WorkFolder, plan: Plan, choices: dict[str, Any]
) -> tuple[WorkingStore, Inputs, Records]:
    """The store of the unfinished run, if there is one and it is this run; else a new one.

    Returns:
        The store, what the run reads, and the blocks that need not be computed again.

    Raises:
        ProductError: it is another run's.
        SceneError: an input is not what it was.
    """
    layout = Layout(plan.shape, plan.block_shape, (CHUNK, CHUNK))
    card = job.model.card
    arrays = [
        ArraySpec(
            layer.name,
            layer.nodata_of(card.legend),
            layer.bands(len(card.channels)),
            layer.overviews,
            card.legend.ids if layer.categorical else (),
        )
        for layer in job.layers
    ]
    threads = job.engine.threads or threads_here()
    identity = job.identity(plan)
    if folder.resumable:
        store = WorkingStore.resume(folder.store, layout, arrays, identity, threads)
        inputs = read_inputs(folder.store)
        inputs.check()
        earlier = _sound(store, folder, plan, job.scene)
        folder.note_attempt()
        logger.info("going on with an unfinished run: %d blocks are there", len(earlier))
        return store, inputs, earlier
    inputs = Inputs.of(job)
    extra = choices | {"inputs": inputs.facts()}
    store = WorkingStore.create(folder.store, layout, arrays, identity, extra, threads, folder.ledger)
    folder.note_attempt()
    return store, inputs, {}


def _sound(store: WorkingStore, folder: WorkFolder, plan: Plan, scene: Scene) -> Records:
    """What can be gone on with; the rest is taken out of the ledger, which is read once."""
    # A bucket keeps what it was given: that is read once, before it is published.
    records, damaged = store.drop_damaged() if folder.far is None else (store.finished(), ())
    if damaged:
        logger.warning(
            "%d finished blocks were damaged or lost on the disk, %s among them; they are computed anew",
            len(damaged),
            damaged[0],
        )
    if unread := blocks_to_read_again(records.values(), plan, scene):
        store.ledger.strike(unread)
        logger.info(
            "%d blocks were made while parts of the imagery could not be read; they are computed anew",
            len(unread),
        )
    return {index: record for index, record in records.items() if index not in unread}


def read_inputs(place: Store) -> Inputs:
    """The files that the run whose blocks lie there reads, as they were when it began.

    Raises:
        ProductError: there is no run.
    """
    return Inputs.from_facts(WorkingStore.read_extra(place, {}).get("inputs", ()))


def _changed(layers: Mapping[str, NDArray[np.uint8]]) -> dict[str, int]:
    """Pixels of a block with a label, and those that have changed since; nothing where nobody looked."""
    if (change := layers.get(CHANGE.name)) is None:
        return {}
    seen = change != CHANGE.nodata
    return {"watched": int(seen.sum()), "changed": int((seen & (change >= CHANGED)).sum())}


@dataclass
class StoreSink:
    """The working store as a sink of blocks, and the count of windows beside it."""

    store: WorkingStore
    predicted: Callable[[int], None]
    """Told the number of windows that went by, after each row of them."""
    may_write: Callable[[], bool]
    """Whether the run still holds the folder; asked before each block."""
    inputs: Inputs
    """What must stay as it was, looked at before each block, so that no block of two images is entered."""
    earlier: Records | None = None
    """All blocks that are finished, where nobody else computes; None: the ledger is asked."""
    stop: threading.Event | None = None
    """Ends the wait for a store that is away; None: it is not waited for here, another process tries."""
    there: set[tuple[int, int]] = field(default_factory=set)
    """Blocks that it has found in the ledger, or entered."""
    windows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WINDOWS, 0))
    _written: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WINDOWS, 0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *row: int) -> None:
        """Note windows of one row: those of `WINDOWS`."""
        run, skipped, _ = row
        with self._lock:
            for name, count in zip(WINDOWS, row, strict=True):
                self.windows[name] += count
        self.predicted(run + skipped)

    def finished(self, among: Sequence[Block] | None) -> set[tuple[int, int]]:
        """Those of the blocks, or of all, that are in the ledger."""
        if among is None and self.earlier is not None:
            found = set(self.earlier)
        else:
            found = set(self.store.finished(None if among is None else [block.index for block in among]))
        self.there |= found
        return found

    def write(self, finished: FinishedBlock) -> None:
        """Write shards, then the ledger, as long as the run holds the folder and its inputs stay.

        Raises:
            MachineError: the folder is gone or another run's, or cannot be written.
            SceneError: an input was changed.
            StoppedError: `stop` was set while the store was away.
        """
        with self._lock:
            counts = {k: self.windows[k] - self._written[k] for k in self.windows}
            self._written = dict(self.windows)
        keep = partial(self._keep, finished, counts | _changed(finished.layers))
        if self.stop is None:
            keep()
        else:
            outwait(keep, f"block {finished.block.index}", self.stop)
        self.there.add(finished.block.index)
        for hole in finished.holes:
            logger.warning("unreadable: %s in %s: %s", hole.window, hole.path, hole.reason)

    def _keep(self, finished: FinishedBlock, counts: dict[str, int]) -> None:
        if not self.may_write():
            raise taken_over(self.store.place)
        self.inputs.check()
        with machine_errors(self.store.place):
            self.store.write_block(finished.block.index, finished.layers, holes=finished.holes, counts=counts)
