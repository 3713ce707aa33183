"""Running a job: load the network, compute the blocks that are missing, publish. Imports torch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from citycover.allocator import release_memory
from citycover.area import AreaMask
from citycover.io.folder import ProductFolder, machine_errors
from citycover.io.raster import RasterReader
from citycover.io.reader import Reader
from citycover.io.shard import ArraySpec, Layout
from citycover.io.store import WorkingStore
from citycover.planning import CHUNK, Plan
from citycover.predictor import ModelPredictor, choose_device
from citycover.probe import (
    GATE_PIXELS,
    choose_precision,
    default_batch,
    fastest_window,
    keep_memory,
    larger_windows,
    sample_windows,
)
from citycover.product import Job, Product, Watch, plan_windows
from citycover.publish import Finished, publish
from citycover.scene import Scene
from citycover.schedule import run_blocks
from citycover.seams import Seams, verify_seams
from citycover.stages import Stages
from citycover.sweep import FinishedBlock, SweepInput

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Computed:
    """All blocks are in the store."""

    plan: Plan
    device: str
    workers: int = 1
    """Processes that computed."""
    peak_rss: int = 0
    """Bytes of memory that one of them held at most, if they are other processes than this one."""


def run_job(job: Job, folder: ProductFolder, watch: Watch, begin: float) -> Product:
    """Everything from loading the network to the renamed files.

    Args:
        job: what to do.
        folder: entered, so that nobody else writes there.
        watch: progress and stop.
        begin: `time.perf_counter()` when the run began.
    """
    stages = Stages()
    if job.request.workers or job.request.scheduler:
        from citycover.cluster import compute_on_cluster  # dask is imported by those who ask for it

        done = compute_on_cluster(job, folder, watch, stages)
    else:
        done = _compute_here(job, folder, watch, stages)
        release_memory()
    with WorkingStore.open(folder.work, job.request.threads or 2) as store:
        seams = _verify(job, done.plan, store, stages, watch.stop) if job.request.verify_seams else None
        watch.publishing()
        finished = Finished(
            job=job,
            plan=done.plan,
            store=store,
            device=done.device,
            stages=stages,
            begin=begin,
            seams=seams,
            workers=done.workers,
            worker_peak_rss=done.peak_rss,
        )
        return publish(finished, folder)


def _verify(job: Job, plan: Plan, store: WorkingStore, stages: Stages, stop: threading.Event) -> Seams:
    """Compare patches of the finished map with the same ones on a shifted grid."""
    with stages.time("seams"):
        predictor = ModelPredictor(job.model.path, choose_device(job.request.device), plan.precision)
        readers = open_readers(job.scene, job.request.threads)
        return verify_seams(plan, predictor, readers, store.array("classes").read, stop)


def _compute_here(job: Job, folder: ProductFolder, watch: Watch, stages: Stages) -> Computed:
    """All unfinished blocks, in this process."""
    if job.request.threads:
        torch.set_num_threads(job.request.threads)
    with stages.time("start"):
        device = choose_device(job.request.device)
        predictor = ModelPredictor(job.model.path, device)
        plan, choices = settle(job, kept_choices(job, folder), predictor)
        predictor.precision = plan.precision
        store = open_store(job, folder, plan, choices)
    earlier = store.finished()
    watch.started(plan, sum(record.pixels for record in earlier.values()))
    sink = _StoreSink(store, folder, watch.predicted)
    swept = time.perf_counter()
    given = SweepInput(
        plan=plan,
        predictor=predictor,
        open_readers=open_readers(job.scene, job.request.threads),
        area=area_mask(job, plan),
        stages=stages,
        stop=watch.stop,
        on_windows=sink.count,
    )
    with store:
        run_blocks(given, sink, watch.advanced)
    stages.add("sweep", time.perf_counter() - swept)
    return Computed(plan, str(device))


def area_mask(job: Job, plan: Plan) -> AreaMask | None:
    """What lies inside the area of interest; None where all of the plan does."""
    return job.area.mask(plan.origin) if job.area and job.area.geometry is not None else None


def open_readers(scene: Scene, threads: int | None) -> Callable[[], Sequence[Reader]]:
    """Opens a reader for each band group; small enough to be sent to a worker."""
    return partial(_open_all, scene, threads or 1)


def _open_all(scene: Scene, threads: int) -> list[RasterReader]:
    return [RasterReader(group, scene.resampling, threads=threads) for group in scene.groups]


def kept_choices(job: Job, folder: ProductFolder) -> dict[str, Any]:
    """What the unfinished run in the folder had settled, if there is one.

    Raises:
        ProductError: it is of another model, scene or area.
    """
    return dict(WorkingStore.read_extra(folder.work, job.given)) if folder.resumable else {}


def settle(job: Job, kept: dict[str, Any], predictor: ModelPredictor) -> tuple[Plan, dict[str, Any]]:
    """Window, batch and precision: as asked for, as the unfinished run had them, or chosen here.

    Returns:
        The plan, and the choices that a resumed run must keep.
    """
    request = job.request

    def plan_in(window: int) -> Plan:
        plan = plan_windows(request, job.model, job.scene, job.area, window)
        batch = request.batch or default_batch(plan, predictor.device)
        if "batch" in kept and request.batch in (None, kept.get("batch_asked")):
            batch = kept["batch"]
        return replace(plan, batch=batch)

    window = request.window or kept.get("window")
    if window is None:
        larger = larger_windows(job.model.card) if request.memory is None else ()
        sizes = (job.model.card.window.size, *larger)
        window = fastest_window({size: plan_in(size) for size in sizes}, predictor)
    plan = plan_in(window)
    precision = kept.get("precision") if request.precision == "auto" else None
    if precision is None:
        readers = open_readers(job.scene, request.threads)
        precision = choose_precision(
            request.precision,
            predictor,
            lambda: sample_windows(plan, job.model.card, readers, GATE_PIXELS),
        )
    plan = replace(plan, precision=precision)
    if "block" in kept:
        plan = replace(plan, block_shape=tuple(kept["block"]))
    elif request.memory is not None:
        plan = keep_memory(plan, job.scene, predictor, request.memory)
    release_memory()  # what the trials took, in windows larger than the one that was chosen
    return plan, {
        "window": window,
        "batch": plan.batch,
        "batch_asked": request.batch,
        "precision": precision,
        "block": list(plan.block_shape),
    }


def open_store(job: Job, folder: ProductFolder, plan: Plan, choices: dict[str, Any]) -> WorkingStore:
    """The store of the unfinished run, if there is one and it is this run; else a new one."""
    layout = Layout(plan.shape, plan.block_shape, (CHUNK, CHUNK))
    arrays = [ArraySpec("classes", job.model.card.legend.product_nodata), ArraySpec("confidence", 0)]
    threads = job.request.threads or 2
    identity = job.identity(plan)
    if folder.resumable:
        store = WorkingStore.resume(folder.work, layout, arrays, identity, threads)
        logger.info("going on with an unfinished run: %d blocks are there", len(store.finished()))
        return store
    return WorkingStore.create(folder.work, layout, arrays, identity, choices, threads)


@dataclass
class _StoreSink:
    """The working store as a sink of blocks, and the count of windows beside it."""

    store: WorkingStore
    folder: ProductFolder
    predicted: Callable[[int], None]
    windows: dict[str, int] = field(default_factory=lambda: {"run": 0, "skipped": 0})
    _written: dict[str, int] = field(default_factory=lambda: {"run": 0, "skipped": 0})
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, run: int, skipped: int) -> None:
        """Note windows of one row."""
        with self._lock:
            self.windows["run"] += run
            self.windows["skipped"] += skipped
        self.predicted(run + skipped)

    def finished(self) -> set[tuple[int, int]]:
        """Blocks in the ledger."""
        return set(self.store.finished())

    def write(self, finished: FinishedBlock) -> None:
        """Write shards, then the ledger."""
        with self._lock:
            counts = {k: self.windows[k] - self._written[k] for k in self.windows}
            self._written = dict(self.windows)
        arrays = {"classes": finished.classes, "confidence": finished.confidence}
        with machine_errors(self.folder.out):
            self.store.write_block(finished.block.index, arrays, holes=finished.holes, counts=counts)
        for hole in finished.holes:
            logger.warning("unreadable: %s in %s: %s", hole.window, hole.path, hole.reason)
