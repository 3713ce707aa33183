"""Blocks on a dask.distributed cluster: processes of this machine, or any scheduler that can be reached.

Strategy: a task is a run of vertically adjacent blocks, because within a run a worker goes on with its open
rows and computes no window twice. Runs are handed out one to each worker and are cut the shorter the less is
left (`share_out`), so that all workers end together; they are made as they are needed, so a scene of any
size starts at once. The store's ledger is the truth: whoever gets a run leaves out what is there, and a
worker that dies loses the block in hand. The client settles the plan on a worker, follows, and publishes.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed says that it is typed, and is so in part.

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.comm.core import CommClosedError

from citycover.errors import CitycoverError, MachineError
from citycover.io.folder import ProductFolder
from citycover.io.store import WorkingStore
from citycover.planning import Block, Plan
from citycover.product import Job, Watch
from citycover.running import Computed, area_mask, kept_choices, open_readers, open_store
from citycover.scene import Scene
from citycover.schedule import open_runs, share_out
from citycover.stages import Stages
from citycover.sweep import StoppedError
from citycover.worker import (
    ModelFactory,
    Report,
    Sight,
    Work,
    WorkerSetup,
    compute,
    local_versions,
    obstacle,
    request_stop,
    settle_job,
)

logger = logging.getLogger(__name__)

ALLOWED_FAILURES = 3
"""Deaths of workers over one run of blocks after which the blocks, not the workers, are to blame."""
CONNECT_SECONDS = 5
WORKER_SECONDS = 60
"""How long a cluster may be without any worker, and a scheduler or worker without an answer."""
_STOP_SECONDS = 120
"""How long workers may take over the batch in hand when a run is stopped."""
_POLL = 0.2


@contextlib.contextmanager
def open_cluster(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """A client of a cluster of our own, or of one that is there.

    Args:
        workers: processes of this machine; they end with the client, however it ends.
        scheduler: address of a scheduler, instead.

    Raises:
        MachineError: the scheduler does not answer, or no worker comes; or, from the body, it was lost.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silent_client())
        if scheduler is not None:
            client = stack.enter_context(_connect(scheduler))
            plugin = WorkerSetup()
        else:
            client = stack.enter_context(_start(workers or 1))
            plugin = WorkerSetup(_devices(), own=True)
        stack.enter_context(_loss_told(client))
        _await_worker(client, workers or 1)
        _ask_all(client, os.getpid)  # what follows would wait for ever on a worker that hangs
        client.register_plugin(plugin)
        client.forward_logging("citycover", logging.INFO)
        yield client


@contextlib.contextmanager
def _silent_client() -> Iterator[None]:
    """Keep distributed's client from logging tracebacks: what ends a run is raised, and told, by us."""
    log = logging.getLogger("distributed.client")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _loss_told(client: Client) -> Iterator[None]:
    """Say that the scheduler was lost, whatever the call that was under way made of it.

    Futures are cancelled as soon as the connection breaks: a scheduler that comes back knows nothing of them.
    """
    address = _address(client)
    try:
        yield
    except (CitycoverError, StoppedError):
        raise
    except Exception as error:
        signs = (CommClosedError, CancelledError, TimeoutError)
        if client.status == "running" and not isinstance(error, signs):
            raise
        raise MachineError(
            f"the scheduler at {address} was lost in the middle of the run ({type(error).__name__}); start "
            "scheduler and workers again, then run the same command: finished blocks are kept"
        ) from error


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MachineError(
            f"no scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler`, "
            "give its address as tcp://HOST:8786, or use --workers"
        ) from None


@contextlib.contextmanager
def _start(workers: int) -> Iterator[Client]:
    """Processes of our own, each with one thread for tasks; a nanny starts one anew when it dies."""
    settings = {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # the plan bounds memory; a nanny that kills is no help
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _await_worker(client: Client, workers: int) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise MachineError(
            f"no worker came within {WORKER_SECONDS} s, {workers} wanted; start workers with "
            f"`dask worker {_address(client)}`"
        ) from None


def _devices() -> tuple[str, ...]:
    """CUDA devices of this machine, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")) if named else tuple(map(str, range(torch.cuda.device_count())))


def _address(client: Client) -> str:
    assert client.scheduler is not None, "the client is connected"
    return str(client.scheduler.address)


def _count_workers(client: Client) -> int:
    return len(client.nthreads(callback_timeout=WORKER_SECONDS))


def _ask_all(client: Client, question: Callable[..., Any], *about: object) -> dict[str, Any]:
    """The answer of every worker by its address, or the exception that it raised instead."""
    try:
        answers: dict[str, Any] = client.run(
            question, *about, on_error="return", callback_timeout=WORKER_SECONDS
        )
    except TimeoutError:
        count = _count_workers(client)  # where it is the scheduler that hangs, this raises
        raise MachineError(
            f"not all of the {count} workers answered within {WORKER_SECONDS} s: one hangs, or cannot be "
            "reached from the scheduler; end it, then run the same command again"
        ) from None
    return answers


def describe(client: Client) -> str:
    """A line about a cluster: how many work for it, where to watch, where they log."""
    count = _count_workers(client)
    link = client.dashboard_link if importlib.util.find_spec("bokeh") else "none, as bokeh is not installed"
    return (
        f"{count} workers of {_address(client)}; dashboard: {link}; "
        "what workers log is repeated here (-v, --log-file)"
    )


def check_workers(client: Client, sight: Sight) -> None:
    """Ask every worker whether it can take part.

    Raises:
        MachineError: one cannot, or does not answer; the message says why.
    """
    for address, why in _ask_all(client, obstacle, sight).items():
        if isinstance(why, Exception):
            raise MachineError(
                f"worker {address} cannot take part ({type(why).__name__}: {why}); install the same "
                "citycover, python and torch there"
            )
        if why:
            raise MachineError(f"worker {address} cannot take part: {why}")


class ClusterRun:
    """Hands the runs of blocks to the workers of a cluster, and follows them."""

    def __init__(self, client: Client, work: Work, watch: Watch, stages: Stages) -> None:
        self.client, self.work, self.watch, self.stages = client, work, watch, stages
        self.windows = {"run": 0, "skipped": 0}
        self.workers = 0
        """Most workers that were there at a time."""
        self.peak_rss = 0
        """Bytes of memory that a worker held at most."""
        self.flying: dict[str, tuple[Future[Report], Sequence[Block]]] = {}
        """Runs in the hands of the cluster, by the key of their task."""
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.told: set[tuple[int, int]] = set()
        self.alive = time.monotonic()

    def compute(self, finished: set[tuple[int, int]]) -> None:
        """Compute all blocks but the finished ones.

        Raises:
            StoppedError: `watch.stop` was set; what was finished is in the store.
            CitycoverError: a worker met something that the user can mend.
            MachineError: workers die over a block, or there are none.
        """
        plan = self.work.plan
        count = plan.block_counts[0] * plan.block_counts[1] - len(finished)
        workers = _count_workers(self.client)
        pieces = share_out(open_runs(plan.blocks(), finished), count, workers)
        self.client.subscribe_topic(self.work.sight.run, self._hear)
        try:
            while self._refill(pieces):
                key = self._wait()
                if self.watch.stop.is_set():
                    raise StoppedError
                if key is not None:
                    self._collect(*self.flying.pop(key))
        finally:
            self._end()

    def _refill(self, pieces: Iterator[Sequence[Block]]) -> bool:
        """One run in flight for each worker; whether any is."""
        workers = _count_workers(self.client)
        now = time.monotonic()
        self.alive = now if workers else self.alive
        self.workers = max(self.workers, workers)
        if now - self.alive > WORKER_SECONDS:
            raise MachineError(
                f"the cluster has had no worker for {WORKER_SECONDS} s; start workers and run the same "
                "command again: finished blocks are kept"
            )
        while len(self.flying) < workers and (piece := next(pieces, None)) is not None:
            first, last = piece[0].index, piece[-1].index
            key = f"blocks-{first[0]}-to-{last[0]}-of-column-{first[1]}-{self.work.sight.run}"
            future = self.client.submit(compute, self.work, piece, key=key, pure=False)
            self.flying[key] = (future, piece)
            future.add_done_callback(lambda ended: self.ended.put(ended.key))
        return bool(self.flying)

    def _wait(self) -> str | None:
        """The next run that ended; None after a moment without one."""
        with contextlib.suppress(queue.Empty):
            return self.ended.get(timeout=_POLL)
        return None

    def _collect(self, future: Future[Report], blocks: Sequence[Block]) -> None:
        """Take the report of a run, or raise what ended it."""
        try:
            report = future.result()
        except KilledWorker as error:
            raise MachineError(self._blame(blocks, error)) from None
        self.stages.merge(report.seconds)
        self.peak_rss = max(self.peak_rss, report.peak_rss)
        for name, count in report.windows.items():
            self.windows[name] += count
        for block in report.done:
            self._tell(block)

    def _blame(self, blocks: Sequence[Block], error: KilledWorker) -> str:
        with WorkingStore.open(self.work.store) as store:
            there = store.finished()
        block = next((b for b in blocks if b.index not in there), blocks[-1])
        return (
            f"workers died {error.allowed_failures + 1} times over block {block.index} (pixels from row "
            f"{block.window.row}, column {block.window.col}), most often for want of memory; give a smaller "
            "--batch or --window or fewer --workers, and look at the logs of the workers"
        )

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Progress of a worker; called in the client's event loop."""
        message = event[1]
        if "windows" in message:
            self.watch.predicted(message["windows"])
        else:
            self._tell(self.work.plan.block(*message["block"]))

    def _tell(self, block: Block) -> None:
        """Tell of a block once: events may come late, or be lost with their worker."""
        if block.index not in self.told:
            self.told.add(block.index)
            self.watch.advanced(block)

    def _end(self) -> None:
        """Leave no worker computing: the lock on the folder goes next.

        Workers that cannot be told, because the scheduler is lost, find the lease gone and end, too.
        """
        if self.client.status == "running":
            with contextlib.suppress(OSError, TimeoutError, CancelledError):
                self._stop_workers()
        self.flying.clear()

    def _stop_workers(self) -> None:
        self.client.unsubscribe_topic(self.work.sight.run)
        if self.flying and _count_workers(self.client):  # the latter does not wait forever, `run` does
            self.client.run(request_stop, self.work.sight.run, on_error="ignore")
        until = time.monotonic() + _STOP_SECONDS
        while self.flying and time.monotonic() < until and _count_workers(self.client):
            if (key := self._wait()) is not None:
                self.flying.pop(key, None)
        for future, _ in self.flying.values():
            future.cancel()


@contextlib.contextmanager
def lease(folder: ProductFolder) -> Iterator[Sight]:
    """Say in the folder which run holds it, for workers that cannot see the lock."""
    sight = Sight(f"citycover-{uuid.uuid4().hex}", (folder.work / "lease").absolute())
    sight.lease.write_text(sight.run, encoding="utf-8")
    try:
        yield sight
    finally:
        sight.lease.unlink(missing_ok=True)


def compute_on_cluster(job: Job, folder: ProductFolder, watch: Watch, stages: Stages) -> Computed:
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
            sight = replace(
                mark,
                files=tuple(_files(job)),
                model=(str(far.model.path), far.model.sha256),
                versions=local_versions(),
            )
            check_workers(client, sight)
            watch.connected(describe(client))
            plan, choices, device = _settle(client, far, kept_choices(job, folder), sight)
            store = open_store(job, folder, plan, choices)
        with store:
            earlier = store.finished()
        watch.started(plan, sum(record.pixels for record in earlier.values()))
        work = Work(
            sight=sight,
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


def _settle(client: Client, job: Job, kept: dict[str, Any], sight: Sight) -> tuple[Plan, dict[str, Any], str]:
    """Let a worker settle window, batch and precision, on the device that will compute."""
    settled = client.submit(settle_job, job, kept, sight, pure=False)
    try:
        while not settled.done():
            _count_workers(client)  # a scheduler that hangs gives no answer in time; a result it never gives
            time.sleep(_POLL)
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
