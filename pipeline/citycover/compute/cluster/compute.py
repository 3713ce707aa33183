"""Blocks on a dask.distributed cluster: processes of this machine, or any scheduler that can be reached.

Strategy: a task is a run of vertically adjacent blocks, because within a run a worker goes on with its open
rows and computes no window twice. Runs are handed out one to each worker and are cut the shorter the less is
left (`share_out`), so that all workers end together; they are made as they are needed, so a scene of any
size starts at once. The store's ledger is the truth: whoever gets a run leaves out what is there, and a
worker that dies loses the block in hand. The client settles the plan on a worker, follows, and publishes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker

from citycover.compute.choices import kept_choices
from citycover.compute.cluster.connect import check_workers, count_workers, describe, open_cluster
from citycover.compute.cluster.dispatch import POLL, ClusterRun
from citycover.compute.cluster.terms import ModelFactory, Terms, Work, local_versions
from citycover.compute.cluster.worker import settle_job
from citycover.compute.sink import Computed, open_store
from citycover.errors import MachineError
from citycover.job.job import Job, area_mask
from citycover.job.watch import Watch
from citycover.machine.stages import Stages
from citycover.plan.plan import Plan
from citycover.read.open import open_readers
from citycover.scene.scene import Scene
from citycover.store.work import WorkFolder

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lease(folder: WorkFolder) -> Iterator[Terms]:
    """Say in the folder which run holds it, for workers that cannot see the lock."""
    terms = Terms(f"citycover-{uuid.uuid4().hex}", (folder.work / "lease").absolute())
    terms.lease.write_text(terms.run, encoding="utf-8")
    try:
        yield terms
    finally:
        if terms.held():
            terms.lease.unlink(missing_ok=True)


def compute_on_cluster(job: Job, folder: WorkFolder, watch: Watch, stages: Stages) -> Computed:
    """All unfinished blocks of a job, on the cluster that its request names.

    Raises:
        CitycoverError: anything the user can mend.
        StoppedError: `watch.stop` was set.
    """
    request = job.request
    far = _seen_from_afar(job)
    with lease(folder) as mark, contextlib.ExitStack() as stack:
        with stages.time("start"):
            client = stack.enter_context(open_cluster(request.workers, request.scheduler))
            terms = replace(
                mark,
                files=tuple(_files(job)),
                model=(str(far.model.path), far.model.sha256),
                versions=local_versions(),
            )
            check_workers(client, terms)
            watch.connected(describe(client))
            plan, choices, device = _settle(client, far, kept_choices(job, folder), terms)
            store = open_store(job, folder, plan, choices)
        with store:
            earlier = store.finished()
        watch.started(plan, sum(record.pixels for record in earlier.values()))
        work = Work(
            terms=terms,
            plan=plan,
            make_predictor=ModelFactory(far.model.path, far.model.sha256),
            open_readers=open_readers(far.scene, request.threads),
            store=folder.work.absolute(),
            area=area_mask(job, plan),
            device=request.device,
            threads=far.request.threads,
        )
        begin = time.perf_counter()
        run = ClusterRun(client, work, watch, stages)
        run.compute(set(earlier))
        # Stages are seconds of workers, so the sweep they are compared with is, too.
        stages.add("sweep", (time.perf_counter() - begin) * run.workers)
        return Computed(plan, device, run.workers, run.peak_rss)


def _settle(client: Client, job: Job, kept: dict[str, Any], terms: Terms) -> tuple[Plan, dict[str, Any], str]:
    """Let a worker settle window, batch and precision, on the device that will compute."""
    settled = client.submit(settle_job, job, kept, terms, pure=False)
    try:
        while not settled.done():
            count_workers(client)  # a scheduler that hangs gives no answer in time; a result it never gives
            time.sleep(POLL)
        return settled.result()
    except KilledWorker:
        raise MachineError(
            "workers died while the network was loaded and tried, most often for want of memory; give "
            "--window, --batch and --precision, or fewer --workers"
        ) from None


def _seen_from_afar(job: Job) -> Job:
    """The job with absolute paths and, on this machine, its cores shared among the workers."""
    threads = job.request.threads
    if threads is None and job.request.workers:
        threads = max(1, len(os.sched_getaffinity(0)) // job.request.workers)
    return replace(
        job,
        request=replace(job.request, threads=threads),
        model=replace(job.model, path=Path(job.model.path).absolute()),
        scene=_absolute(job.scene),
    )


def _absolute(scene: Scene) -> Scene:
    groups = tuple(
        replace(group, bands=tuple(replace(b, path=_absolute_path(b.path)) for b in group.bands))
        for group in scene.groups
    )
    return replace(scene, groups=groups)


def _absolute_path(path: str) -> str:
    """GDAL connection strings are left as they are."""
    return str(Path(path).absolute()) if Path(path).exists() else path


def _files(job: Job) -> Iterator[tuple[str, int]]:
    """Path and size of the inputs that are plain files."""
    for path, size, _ in job.scene.fingerprints:
        if Path(path).is_file():
            yield _absolute_path(path), size
