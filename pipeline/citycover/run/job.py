"""A job into a product: compute the blocks that are missing, publish. Imports torch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from citycover.compute.here import compute_here
from citycover.compute.sink import Computed
from citycover.engine.agreement import Seams
from citycover.engine.seams import verify_seams
from citycover.errors import memory_errors
from citycover.job.job import Job
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.machine.cores import threads_here
from citycover.machine.device import choose_device
from citycover.machine.memory import release_memory
from citycover.machine.stages import Stages
from citycover.model.loading import load_predictor
from citycover.plan.layers import CLASSES
from citycover.plan.plan import Plan
from citycover.product.finished import Finished
from citycover.product.image import ImageBeside
from citycover.product.product import Product
from citycover.product.publish import publish
from citycover.read.open import open_readers
from citycover.show.report import write_report
from citycover.store.store import WorkingStore, whole_blocks
from citycover.store.work import WorkFolder


def run_job(
    request: MapRequest, job: Job, folder: WorkFolder, watch: Watch, begin: float, warnings: Sequence[str]
) -> Product:
    """Everything from loading the network to the renamed files.

    Args:
        request: what was asked for.
        job: what was understood of it.
        folder: entered, so that nobody else writes there.
        watch: progress and stop.
        begin: `time.perf_counter()` when the run began.
        warnings: what was warned of so far; grows.
    """
    stages = Stages()
    watch.timing(stages)
    with ThreadPoolExecutor(1, thread_name_prefix="picture") as pool:
        image = ImageBeside(job.scene, pool)
        with memory_errors():
            done = _compute(job, folder, _beginning(watch, image), stages)
        with WorkingStore.open(folder.store, job.engine.threads or threads_here()) as store:
            folder.check_held()  # who took over may have removed them
            blocks = whole_blocks(store)
            seams = _verify(job, done, store, stages, watch.stop) if request.product.verify_seams else None
            done.inputs.check()
            watch.publishing()
            finished = Finished(
                request=request,
                job=job,
                plan=done.plan,
                store=store,
                inputs=done.inputs,
                blocks=blocks,
                device=done.device,
                stages=stages,
                begin=begin,
                attempts=folder.attempts,
                warnings=warnings,
                seams=seams,
                belief=done.belief,
                workers=done.workers,
                worker_peak_rss=done.peak_rss,
            )
            return publish(finished, folder, image.get(done.plan), write_report)


def _beginning(watch: Watch, image: ImageBeside) -> Watch:
    """A watch that has the image read once the first block begins: what is tried before is timed."""

    def started(plan: Plan, done: int) -> None:
        image.begin(plan)
        watch.started(plan, done)

    return replace(watch, started=started)


def _compute(job: Job, folder: WorkFolder, watch: Watch, stages: Stages) -> Computed:
    """All blocks into the store."""
    if job.engine.workers or job.engine.scheduler:
        from citycover.compute.cluster.compute import (
            compute_on_cluster,  # dask is imported by those who ask for it
        )

        return compute_on_cluster(job, folder, watch, stages)
    done = compute_here(job, folder, watch, stages)
    release_memory()
    return done


def _verify(job: Job, done: Computed, store: WorkingStore, stages: Stages, stop: threading.Event) -> Seams:
    """Compare patches of the finished map with the same ones on a shifted grid."""
    with stages.time("seams"):
        plan, device = done.plan, choose_device(job.engine.device)
        predictor = load_predictor(job.model, device, stop).at(plan.precision, plan.form)
        readers = open_readers(job.scene, job.engine.threads)
        return verify_seams(
            plan, predictor, readers, store.array(CLASSES.name).read, stop, evidence=done.evidence
        )
