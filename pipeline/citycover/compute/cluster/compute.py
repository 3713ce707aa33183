"""Blocks on a dask.distributed cluster: processes of this machine, or any scheduler that can be reached.

Strategy: a task is a piece of a column of blocks, because within a column a worker goes on with its open
rows and computes no window twice. Pieces are handed out one to each worker and are cut the shorter the less
is left (`Pieces`), so that all workers end together; they are made as they are needed, so a scene of any
size starts at once. The store's ledger is the truth: whoever gets a piece leaves out what is there, and a
worker that dies loses the block in hand. The client settles the plan on a worker, follows, and publishes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, KilledWorker

from citycover.compute.choices import Settled, in_one_process, kept_choices
from citycover.compute.cluster.connect import (
    WORKER_SECONDS,
    check_workers,
    describe,
    open_cluster,
    workers_of,
)
from citycover.compute.cluster.dispatch import POLL, ClusterRun, say
from citycover.compute.cluster.terms import ModelFactory, Terms, Work, local_versions
from citycover.compute.cluster.worker import forecast_job, request_stop, settle_job
from citycover.compute.forecast import Forecast
from citycover.compute.sink import Computed, open_store
from citycover.errors import CitycoverError, MachineError, StoppedError
from citycover.evidence.labels import PlaceLabels
from citycover.files.identity import FileStamp
from citycover.files.lease import farewell
from citycover.files.store import Store, put_text
from citycover.job.job import Job, area_mask
from citycover.job.watch import Watch
from citycover.machine.stages import Stages
from citycover.read.open import open_readers
from citycover.scene.scene import Scene, Sheet
from citycover.store.names import LEASE
from citycover.store.work import WorkFolder

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def lease(folder: WorkFolder) -> Iterator[Terms]:
    """Say in the store which run holds it, for workers that cannot see the lock."""
    store = folder.seen_from_afar
    terms = replace(_new_terms(), store=store)
    put_text(store, LEASE, terms.run)
    try:
        yield terms
    finally:
        farewell(partial(_take_back, terms, store), str(store))


def _take_back(terms: Terms, store: Store) -> None:
    """Say no more that the run is there; a store that is away must not hide what ended it."""
    with contextlib.suppress(CitycoverError, OSError):
        if terms.held():
            store.delete(LEASE)


def _new_terms() -> Terms:
    return Terms(f"citycover-{uuid.uuid4().hex}")


def compute_on_cluster(job: Job, folder: WorkFolder, watch: Watch, stages: Stages) -> Computed:
    """All unfinished blocks of a job, on the cluster that it asks for.

    Raises:
        CitycoverError: anything the user can mend.
        StoppedError: `watch.stop` was set.
    """
    far = _seen_from_afar(job)
    with lease(folder) as mark, contextlib.ExitStack() as stack:
        with stages.time("start"):
            client = stack.enter_context(open_cluster(far.engine.workers, far.engine.scheduler))
            terms = _about(far, mark)
            unfit = check_workers(client, terms)
            watch.connected(describe(client))
            kept = kept_choices(job, folder)
            settled: Settled = _ask_one(client, unfit, watch.stop, terms.run, settle_job, far, kept, terms)
            plan = settled.plan
            terms = replace(terms, runtime=settled.runtime, device=(far.engine.device, settled.device))
            store, inputs, earlier = open_store(job, folder, plan, settled.kept)
        store.close()
        watch.started(plan, sum(record.pixels for record in earlier.values()))
        work = Work(
            terms=terms,
            plan=plan,
            make_predictor=ModelFactory(far.model),
            open_readers=open_readers(far.scene, far.engine.threads or 1),
            store=folder.seen_from_afar,
            area=area_mask(job, plan),
            evidence=settled.evidence,
            device=far.engine.device,
            threads=far.engine.threads,
        )
        begin = time.perf_counter()
        run = ClusterRun(client, work, watch, stages)
        run.compute(set(earlier))
        # Stages are seconds of workers, so the sweep they are compared with is, too.
        stages.add("sweep", (time.perf_counter() - begin) * run.roster.most)
        return Computed(
            plan, settled.device, inputs, settled.belief, settled.evidence, run.roster.most, run.peak_rss
        )


def forecast_on_cluster(job: Job) -> Forecast:
    """What `compute_on_cluster` would do, by one of the workers; nothing is written.

    Raises:
        CitycoverError: anything the user can mend.
    """
    far = _seen_from_afar(job)
    with open_cluster(far.engine.workers, far.engine.scheduler) as client:
        terms = _about(far, _new_terms())
        unfit = check_workers(client, terms)
        found: Forecast = _ask_one(client, unfit, threading.Event(), terms.run, forecast_job, far, terms)
        return replace(found, workers=len(workers_of(client) - unfit.keys()))


def _about(job: Job, terms: Terms) -> Terms:
    """Terms with all that a worker must see alike."""
    return replace(
        terms,
        files=tuple(_files(job)),
        models=tuple((str(member.path), member.sha256) for member in job.model.members),
        versions=local_versions(),
    )


def _ask_one(
    client: Client,
    unfit: Mapping[str, str],
    stop: threading.Event,
    run: str,
    question: Callable[..., Any],
    *about: object,
) -> Any:
    """Let a worker, not an unfit one, answer what only the device that will compute can tell.

    Who asks no more tells it so: it would go on with its trials, and nobody else could use it meanwhile.
    """
    fit = workers_of(client) - unfit.keys()
    answer = client.submit(question, *about, pure=False, workers=sorted(fit) if unfit else None)
    died = MachineError(
        "workers died while the network was loaded and tried, most often for want of memory; give --window, "
        "--batch and --precision, or fewer --workers"
    )
    alive = time.monotonic()
    try:
        while not answer.done():
            if stop.is_set():
                raise StoppedError
            # A scheduler that hangs gives no answer in time; a result it never gives.
            there = workers_of(client)
            alive = time.monotonic() if there else alive
            if (unfit and not there & fit) or time.monotonic() - alive > WORKER_SECONDS:
                raise died
            time.sleep(POLL)
        return answer.result()
    except KilledWorker:
        raise died from None
    finally:
        if not answer.done() and client.status == "running":  # a lost scheduler would be waited for
            say(client, request_stop, run)


def _seen_from_afar(job: Job) -> Job:
    """The job as a worker sees it: absolute paths, and its share of the cores."""
    return replace(
        in_one_process(job),
        model=replace(
            job.model,
            members=tuple(replace(member, path=member.path.absolute()) for member in job.model.members),
        ),
        scene=_absolute(job.scene),
        labels=_absolute_labels(job.labels),
    )


def _absolute_labels(labels: PlaceLabels | None) -> PlaceLabels | None:
    if labels is None:
        return None
    return replace(labels, sheets=tuple(replace(s, path=s.path.absolute()) for s in labels.sheets))


def _absolute(scene: Scene) -> Scene:
    return replace(
        scene,
        groups=tuple(replace(g, sheets=tuple(map(_absolute_sheet, g.sheets))) for g in scene.groups),
    )


def _absolute_sheet(sheet: Sheet) -> Sheet:
    return replace(sheet, bands=tuple(replace(b, path=_absolute_path(b.path)) for b in sheet.bands))


def _absolute_path(path: str) -> str:
    """GDAL connection strings are left as they are."""
    return str(Path(path).absolute()) if Path(path).exists() else path


def _files(job: Job) -> Iterator[tuple[str, int]]:
    """Path and size of the inputs that lie on disks."""
    for path, size, _ in job.scene.fingerprints:
        if FileStamp.of(path):
            yield _absolute_path(path), size
    for sheet in job.labels.sheets if job.labels else ():
        if stamp := FileStamp.of(sheet.path):
            yield str(sheet.path.absolute()), stamp.size
