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
import errno
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distributed import Worker, WorkerPlugin, get_worker

from citycover.compute.cluster.terms import ModelFactory, Report, Sign, Terms, Work, local_versions
from citycover.errors import CitycoverError, DeviceError, MachineError
from citycover.files.failures import is_passing
from citycover.files.identity import FileStamp, sha256_of
from citycover.files.store import Store
from citycover.machine.memory import tune_allocator
from citycover.model.form import FORMS, runtime_of
from citycover.store.names import LEASE

if TYPE_CHECKING:
    from citycover.compute.choices import Settled
    from citycover.compute.forecast import Forecast
    from citycover.compute.sink import StoreSink
    from citycover.engine.input import Room, SweepInput
    from citycover.job.inputs import Inputs
    from citycover.job.job import Job
    from citycover.machine.stages import Stages
    from citycover.model.predictor import Predictor
    from citycover.plan.plan import Block

T = TypeVar("T")

logger = logging.getLogger(__name__)

_FAREWELL = 1.0
"""Seconds for what was logged to leave a process that ends."""


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
    stopped: set[str] = field(default_factory=set)
    """Runs that shall end here."""
    stops: dict[str, threading.Event] = field(default_factory=dict)
    """What ends the piece in hand, by run."""
    seen: set[Terms] = field(default_factory=set)
    inputs: tuple[str, Inputs] | None = None
    """Of a run, by its name."""
    room: tuple[str, Room] | None = None
    """What was learned of the memory of the device, in the windows of a run, by its name."""
    leaving: set[str] = field(default_factory=set)
    """Pieces of which no further block shall be begun."""

    def begin(self, run: str) -> threading.Event:
        """What will end the piece that is begun."""
        stop = self.stops[run] = threading.Event()
        if run in self.stopped:
            stop.set()
        return stop

    def end(self, run: str) -> None:
        """Let a run end here after the batch in hand."""
        self.stopped.add(run)
        if run in self.stops:
            self.stops[run].set()

    def room_of(self, run: str) -> Room:
        """What a run has learned so far of the memory of the device."""
        if self.room is None or self.room[0] != run:
            from citycover.engine.input import Room

            self.room = run, Room()
        return self.room[1]

    def inputs_of(self, work: Work) -> Inputs:
        """The files that a run reads: parsed once, and what was found touched is looked at once."""
        if self.inputs is None or self.inputs[0] != work.terms.run:
            from citycover.compute.sink import read_inputs

            self.inputs = work.terms.run, read_inputs(work.store)
        return self.inputs[1]

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the inference thread."""
        return self.thread.submit(function, *arguments).result()


_process = _Process()


def why_unfit(terms: Terms) -> str | None:
    """Why this process cannot take part in a run; None: it can, and is not asked again.

    Raises:
        ConnectionAbortedError: that cannot be said while a store is away, and may pass.
    """
    if terms in _process.seen:
        return None
    why = _obstacle(terms)
    if why is None:
        _process.seen.add(terms)
    return why


def _obstacle(terms: Terms) -> str | None:
    here = dict(local_versions())
    for name, wanted in terms.versions:
        if here.get(name) != wanted:
            return f"it has {name} {here.get(name)}, the client has {wanted}; install the same version"
    if terms.runtime and terms.runtime not in map(runtime_of, FORMS):
        return f"it lacks {terms.runtime}, by which the run computes; install it, or give --form torchscript"
    if terms.store is not None and (why := _why_no_writer(terms.store, terms)):
        return why
    if terms.device and (why := _why_another_device(*terms.device)):
        return why
    for path, size in terms.files:
        if (stamp := FileStamp.of(path)) is None or stamp.size != size:
            return f"it cannot see the input {path} as the client does; put it on a shared folder"
    for path, sha256 in terms.models:
        if not _is_model(path, sha256):
            return f"it cannot see the model {path} as the client does; put it on a shared folder"
    return None


def _why_no_writer(store: Store, terms: Terms) -> str | None:
    """Why this process cannot write where a run keeps its blocks; None: it can. As `why_unfit`."""
    probe = f".{uuid.uuid4().hex}.probe"  # a worker is asked as it joins, and as it begins a piece, at once
    try:
        if store.get(LEASE) != terms.run.encode():
            return f"{store} belongs to another run there"
        store.put(probe, lambda _file: None)
        store.delete(probe)
    except OSError as error:
        return (
            f"it cannot write to {store} ({error.strerror}); --out must be on a shared folder, or give --work"
        )
    except CitycoverError as error:
        if isinstance(error, MachineError) and is_passing(error):
            raise ConnectionAbortedError(errno.ECONNABORTED, str(error)) from None  # crosses as it is
        return f"it cannot write to {store}: {error}"
    return None


def _why_another_device(asked: str, wanted: str) -> str | None:
    from citycover.machine.device import choose_device, kind_of

    try:
        found = kind_of(choose_device(asked))
    except MachineError as error:
        return str(error)
    return None if found == wanted else f"it computes on {found}, the run on {wanted}: pixels would differ"


def request_stop(run: str) -> None:
    """Let trials and computation of a run end after the batch in hand. Called in the worker's event loop."""
    _process.end(run)


def hand_back(piece: str) -> None:
    """Begin no further block of a piece. Called in the worker's event loop."""
    _process.leaving.add(piece)


def settle_job(job: Job, kept: dict[str, Any], terms: Terms) -> Settled:
    """Settle a job where the network will run.

    Raises:
        StoppedError: the client said so.
    """
    offered = _as_offered(job, get_worker())

    def settle_here() -> Settled:
        from citycover.compute.choices import settle

        return settle(offered, _network_of(offered, terms), kept)

    return _process.run(settle_here)


def forecast_job(job: Job, terms: Terms) -> Forecast:
    """Settle a job where the network would run, and say how long that would take."""
    offered = _as_offered(job, get_worker())

    def forecast_here() -> Forecast:
        from citycover.compute.forecast import forecast

        return forecast(offered, _network_of(offered, terms))

    return _process.run(forecast_here)


def _as_offered(job: Job, worker: Worker) -> Job:
    """The job with the threads of this worker, unless it asks for others."""
    threads = job.engine.threads or worker.state.nthreads
    return replace(job, engine=replace(job.engine, threads=threads))


def _network_of(job: Job, terms: Terms) -> Predictor:
    """The network of a job, on the device that it asks for; what ends the run here ends its trials."""
    from citycover.machine.device import choose_device

    _check(terms)
    return ModelFactory(job.model)(choose_device(job.engine.device), _process.begin(terms.run))


def compute(work: Work, blocks: Sequence[Block]) -> Report:
    """Compute vertically adjacent blocks of one column and write them into the store.

    Those that the ledger has already are left out, so a run that moves to another worker goes on. A process
    that cannot take part hands all of them back; one whose device fails ends: a nanny starts another.

    Raises:
        StoppedError: the client said so; what was finished is in the store.
        MachineError: the store cannot be written.
        SceneError: an input was changed.
    """
    worker = get_worker()
    piece = str(worker.get_current_task())
    try:
        if why := why_unfit(work.terms):
            return Report(worker.address, rest=tuple(blocks), unfit=why)
        return _process.run(_compute, work, blocks, worker, piece)
    except ConnectionAbortedError as error:
        return Report(worker.address, rest=tuple(blocks), trouble=str(error.strerror))
    except DeviceError as error:
        logger.error("process %d on %s ends: %s", os.getpid(), socket.gethostname(), error)  # noqa: TRY400
        time.sleep(_FAREWELL)
        os._exit(MachineError.exit_code)
    finally:
        _process.leaving.discard(piece)


@dataclass
class _Teller:
    """Tells the client how a piece goes."""

    run: str
    piece: str
    worker: Worker

    def tell(self, **what: Any) -> None:
        self.worker.log_event(self.run, asdict(Sign(self.piece, self.worker.address, **what)))

    def windows(self, count: int) -> None:
        self.tell(windows=count)

    def block(self, block: Block) -> None:
        """One that is safe."""
        self.tell(block=block.index)


def _compute(work: Work, blocks: Sequence[Block], worker: Worker, piece: str) -> Report:
    from citycover.compute.sink import StoreSink
    from citycover.engine.blocks import run_blocks
    from citycover.machine.memory import peak_rss
    from citycover.machine.stages import Stages
    from citycover.store.store import WorkingStore

    teller = _Teller(work.terms.run, piece, worker)
    teller.tell()
    _set_threads(work.threads or worker.state.nthreads)
    trouble, sink, stages = "", None, Stages()
    try:
        with WorkingStore.open(work.store) as store:
            sink = StoreSink(store, teller.windows, work.terms.held, _process.inputs_of(work))
            given = _sweep_input(work, sink, stages)
            run_blocks(given, sink, teller.block, blocks, lambda: piece in _process.leaving)
    except MachineError as error:
        if not is_passing(error):
            raise
        trouble = str(error)
    return Report(
        worker.address,
        windows=sink.windows if sink else {},
        seconds=stages.seconds(),
        peak_rss=peak_rss(),
        rest=tuple(block for block in blocks if sink is None or block.index not in sink.there),
        trouble=trouble,
    )


def _sweep_input(work: Work, sink: StoreSink, stages: Stages) -> SweepInput:
    """What a piece is computed with."""
    from citycover.engine.input import SweepInput
    from citycover.evidence.open import open_field
    from citycover.machine.device import choose_device
    from citycover.plan.layers import layers_named

    stop = _process.begin(work.terms.run)
    predictor = work.make_predictor(choose_device(work.device), stop)
    return SweepInput(
        plan=work.plan,
        predictor=predictor.at(work.plan.precision, work.plan.form),
        open_readers=work.open_readers,
        area=work.area,
        evidence=open_field(work.evidence, work.plan.grid, predictor.device),
        stages=stages,
        stop=stop,
        room=_process.room_of(work.terms.run),
        layers=layers_named(sink.store.arrays),
        on_windows=sink.count,
    )


def _check(terms: Terms) -> None:
    """Raise MachineError where this process cannot take part."""
    try:
        why = why_unfit(terms)
    except ConnectionAbortedError as error:
        raise MachineError(str(error.strerror)) from None
    if why:
        raise MachineError(f"a worker on {socket.gethostname()} cannot take part: {why}")


def _set_threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def _is_model(path: str, sha256: str) -> bool:
    with contextlib.suppress(OSError):
        return sha256_of(Path(path)) == sha256
    return False
