"""What a process of a cluster does: the same loop as a run in one process, over the blocks it is handed.

    client ── Work, blocks ──▶ worker: network (loaded once) ─▶ run_blocks ─▶ shards and ledger on disk
           ◀─ events: windows, block ──┘                            one thread, as long as the process lives

A worker writes straight into the working store: a block belongs to one worker, so workers never meet. The
client holds the folder's lock, which a worker on another host cannot see; the *lease*, a file in the folder
that names the run, stands for it. A worker that finds another name there, because its client died and a
later run took over, drops its block and ends.

Everything heavy is imported inside functions: `tune_allocator` must come before torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distributed import Worker, WorkerPlugin, get_worker

from citycover import __version__
from citycover.allocator import tune_allocator
from citycover.errors import MachineError

if TYPE_CHECKING:
    import torch

    from citycover.area import AreaMask
    from citycover.io.reader import Reader
    from citycover.planning import Block, Plan
    from citycover.predictor import Predictor
    from citycover.product import Job
    from citycover.sweep import FinishedBlock

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """What a worker must see, and as what, to take part in a run."""

    run: str
    """Name of the run; topic of its events."""
    lease: Path
    """File in the working folder that holds the name of the run."""
    files: tuple[tuple[str, int], ...] = ()
    """Path and size of every input file."""
    model: tuple[str, str] | None = None
    """Path and sha256 of the model file."""
    versions: tuple[tuple[str, str], ...] = ()
    """What must be equal, by name: see `local_versions`."""


@dataclass(frozen=True, slots=True)
class ModelFactory:
    """Loads a model file onto a device: the usual predictor of a run."""

    path: Path
    sha256: str

    def __call__(self, device: torch.device) -> Predictor:
        """Load it; precision is set by the plan."""
        from citycover.predictor import ModelPredictor

        return ModelPredictor(self.path, device)


@dataclass(frozen=True, slots=True)
class Work:
    """What all blocks of a run have in common: small, and picklable."""

    sight: Sight
    plan: Plan
    make_predictor: Callable[[torch.device], Predictor]
    """Picklable; called once a worker. Factories that compare equal share a loaded network."""
    open_readers: Callable[[], Sequence[Reader]]
    store: Path
    """Folder of the working store."""
    area: AreaMask | None = None
    device: str = "auto"
    threads: int | None = None
    """Threads to compute with; None: as many as the worker was given."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker did of the blocks that it was handed."""

    done: tuple[Block, ...]
    windows: dict[str, int]
    """`run` and `skipped`."""
    seconds: dict[str, float]
    """Time by stage."""
    peak_rss: int = 0
    """Bytes of memory that the worker held at most so far."""


class WorkerSetup(WorkerPlugin):
    """Prepares a process before anything heavy is imported there."""

    name = "citycover"
    idempotent = False

    def __init__(self, devices: tuple[str, ...] = (), *, own: bool = False) -> None:
        """Describe the preparation.

        Args:
            devices: CUDA devices to share out, one a worker, by the workers' numbers; none: leave them be.
            own: the processes are ours: signals are the client's business.
        """
        self.devices, self.own = devices, own

    def setup(self, worker: Worker) -> None:
        """Called by distributed in each worker, in its main thread, before its first task."""
        tune_allocator()
        logging.getLogger("citycover").setLevel(logging.INFO)
        if self.devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.devices[int(worker.name) % len(self.devices)]
        if self.own:
            # What ends a task is raised, and told, by the client.
            logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
            if threading.current_thread() is threading.main_thread():
                # A terminal sends SIGINT to all processes at once; the client tells us when to stop.
                signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass
class _Process:
    """What this process keeps from task to task."""

    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "citycover-inference"))
    """One thread computes, however many the worker has: allocator and torch like it that way."""
    stops: dict[str, threading.Event] = field(default_factory=dict)
    seen: set[Sight] = field(default_factory=set)
    loaded: tuple[object, Predictor] | None = None

    def stop_of(self, run: str) -> threading.Event:
        return self.stops.setdefault(run, threading.Event())

    def predictor(self, make: Callable[[torch.device], Predictor], name: str) -> Predictor:
        """The network of a run, loaded once. The last one is kept, and no more: devices are small."""
        if self.loaded is None or self.loaded[0] != (make, name):
            from citycover.predictor import choose_device

            self.loaded = None
            self.loaded = ((make, name), make(choose_device(name)))
            logger.info("loaded the network in process %d on %s", os.getpid(), socket.gethostname())
        return self.loaded[1]

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the inference thread."""
        return self.thread.submit(function, *arguments).result()


_process = _Process()


def local_versions() -> tuple[tuple[str, str], ...]:
    """Versions that must be the same everywhere, so that every worker computes the same pixels."""
    python = ".".join(platform.python_version_tuple()[:2])
    return (("python", python), ("torch", version("torch")), ("citycover", __version__))


def obstacle(sight: Sight) -> str | None:
    """Why this process cannot take part in a run; None: it can."""
    here = dict(local_versions())
    for name, wanted in sight.versions:
        if here.get(name) != wanted:
            return f"it has {name} {here.get(name)}, the client has {wanted}; install the same version"
    try:
        if sight.lease.read_text(encoding="utf-8") != sight.run:
            return f"{sight.lease.parent} belongs to another run there"
        probe = sight.lease.with_name(f".{socket.gethostname()}.{os.getpid()}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror
        return f"it cannot write to {sight.lease.parent} ({reason}); --out must be on a shared folder"
    for path, size in sight.files:
        if not _has_size(Path(path), size):
            return f"it cannot see the input {path} as the client does; put it on a shared folder"
    if sight.model is not None and _sha256(Path(sight.model[0])) != sight.model[1]:
        return f"it cannot see the model {sight.model[0]} as the client does; put it on a shared folder"
    return None


def request_stop(run: str) -> None:
    """Let the computation of a run end after the batch in hand. Called in the worker's event loop."""
    _process.stop_of(run).set()


def settle_job(job: Job, kept: dict[str, Any], sight: Sight) -> tuple[Plan, dict[str, Any], str]:
    """Settle window, batch and precision where the network will run.

    Returns:
        The plan, the choices that a resumed run must keep, and the device.
    """

    def settle_here() -> tuple[Plan, dict[str, Any], str]:
        from citycover.predictor import ModelPredictor
        from citycover.running import settle

        _check(sight)
        _set_threads(job.request.threads)
        predictor = _process.predictor(ModelFactory(job.model.path, job.model.sha256), job.request.device)
        assert isinstance(predictor, ModelPredictor)
        predictor.precision = "fp32"
        plan, choices = settle(job, kept, predictor)
        return plan, choices, str(predictor.device)

    return _process.run(settle_here)


def compute(work: Work, blocks: Sequence[Block]) -> Report:
    """Compute vertically adjacent blocks of one column and write them into the store.

    Those that the ledger has already are left out, so a run that moves to another worker goes on.

    Raises:
        StoppedError: the client said so; what was finished is in the store.
        MachineError: this process cannot see what it needs.
    """
    return _process.run(_compute, work, blocks, get_worker())


def _compute(work: Work, blocks: Sequence[Block], worker: Worker) -> Report:
    from citycover.io.store import WorkingStore
    from citycover.predictor import ModelPredictor
    from citycover.probe import peak_rss
    from citycover.schedule import run_blocks
    from citycover.stages import Stages
    from citycover.sweep import SweepInput

    _check(work.sight)
    _set_threads(work.threads or worker.state.nthreads)
    predictor = _process.predictor(work.make_predictor, work.device)
    if isinstance(predictor, ModelPredictor):
        predictor.precision = work.plan.precision
    stages = Stages()
    with WorkingStore.open(work.store) as store:
        sink = _Sink(work.sight, store, worker)
        given = SweepInput(
            plan=work.plan,
            predictor=predictor,
            open_readers=work.open_readers,
            area=work.area,
            stages=stages,
            stop=_process.stop_of(work.sight.run),
            on_windows=sink.count,
        )
        run_blocks(given, sink, sink.note, blocks)
    return Report(tuple(sink.done), sink.windows, stages.seconds(), peak_rss())


class _Sink:
    """The working store as a sink of blocks, and the client told of each."""

    def __init__(self, sight: Sight, store: Any, worker: Worker) -> None:
        self.sight, self.store, self.worker = sight, store, worker
        self.done: list[Block] = []
        self.windows = {"run": 0, "skipped": 0}
        self._written = {"run": 0, "skipped": 0}
        self._lock = threading.Lock()

    def count(self, run: int, skipped: int) -> None:
        """Note windows of one row."""
        with self._lock:
            self.windows["run"] += run
            self.windows["skipped"] += skipped
        self.worker.log_event(self.sight.run, {"windows": run + skipped})

    def finished(self) -> set[tuple[int, int]]:
        """Blocks in the ledger."""
        return set(self.store.finished())

    def write(self, finished: FinishedBlock) -> None:
        """Write shards, then the ledger, as long as the run holds the folder."""
        from citycover.io.folder import machine_errors

        if not _leased(self.sight):
            raise MachineError(f"{self.sight.lease.parent} was taken over by another run, or is gone")
        with self._lock:
            counts = {k: self.windows[k] - self._written[k] for k in self.windows}
            self._written = dict(self.windows)
        arrays = {"classes": finished.classes, "confidence": finished.confidence}
        with machine_errors(self.store.folder):
            self.store.write_block(finished.block.index, arrays, holes=finished.holes, counts=counts)
        for hole in finished.holes:
            logger.warning("unreadable: %s in %s: %s", hole.window, hole.path, hole.reason)

    def note(self, block: Block) -> None:
        """Tell the client of a block that is safe."""
        self.done.append(block)
        self.worker.log_event(self.sight.run, {"block": list(block.index)})


def _check(sight: Sight) -> None:
    """Raise MachineError where this process cannot take part; looked at once a run."""
    if sight not in _process.seen:
        if why := obstacle(sight):
            raise MachineError(f"a worker on {socket.gethostname()} cannot take part: {why}")
        _process.seen.add(sight)


def _leased(sight: Sight) -> bool:
    with contextlib.suppress(OSError):
        return sight.lease.read_text(encoding="utf-8") == sight.run
    return False


def _set_threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def _has_size(path: Path, size: int) -> bool:
    with contextlib.suppress(OSError):
        return path.stat().st_size == size
    return False


def _sha256(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
