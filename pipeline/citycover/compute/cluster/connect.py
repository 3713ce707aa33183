"""A Dask cluster, of our own processes or of others: connecting, waiting, asking all of it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import dask
from distributed import Client, LocalCluster, Security
from distributed.comm.core import CommClosedError, connect
from tornado.platform.asyncio import BaseAsyncIOLoop

from citycover.compute.cluster.terms import Terms
from citycover.compute.cluster.worker import WorkerSetup, why_unfit
from citycover.errors import CitycoverError, MachineError, StoppedError
from citycover.machine.device import visible_devices
from citycover.machine.script import GUARD

logger = logging.getLogger(__name__)

ALLOWED_FAILURES = 3
"""Deaths of workers over the same blocks after which the blocks, not the workers, are to blame."""

CONNECT_SECONDS = 5

WORKER_SECONDS = 60
"""How long a cluster may be without any worker, and a scheduler or worker without an answer."""


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
            plugin = WorkerSetup(visible_devices(), own=True)
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
        with ThreadPoolExecutor(1, "citycover-greeting") as thread:  # a notebook has a loop in this one
            thread.submit(asyncio.run, _greet(address)).result()
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # what else listens there is read as if it were a scheduler
        raise MachineError(
            f"no scheduler answers at {address} ({type(error).__name__}); start one with `dask scheduler`, "
            "give its address as tcp://HOST:8786, or use --workers"
        ) from error


async def _greet(address: str) -> None:
    """Shake hands with a scheduler.

    A client would wait for ever on one that listens and says nothing, and one that fails half made is closed
    as it is collected, with a traceback.
    """
    security = Security().get_connection_args("client")
    async with asyncio.timeout(CONNECT_SECONDS):
        comm = await connect(address, timeout=CONNECT_SECONDS, **security)
    await comm.close()


@contextlib.contextmanager
def _start(workers: int) -> Iterator[Client]:
    """Processes of our own, each with one thread for tasks; a nanny starts one anew when it dies."""
    settings = {"distributed.scheduler.allowed-failures": ALLOWED_FAILURES}
    with (
        dask.config.set(settings),
        _cluster_of(workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _cluster_of(workers: int) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # the plan bounds memory; a nanny that kills is no help
            dashboard_address=":0",
            silence_logs=logging.ERROR,
        )
    except RuntimeError as error:
        raise MachineError(
            f"{workers} worker processes were asked for and did not start ({error}); where a script asks for "
            f"them, {GUARD}; else they have said above what they lack"
        ) from None


def _await_worker(client: Client, workers: int) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError:
        raise MachineError(
            f"no worker came within {WORKER_SECONDS} s, {workers} wanted; start workers with "
            f"`dask worker {_address(client)}`"
        ) from None


def _address(client: Client) -> str:
    assert client.scheduler is not None, "the client is connected"
    return str(client.scheduler.address)


def workers_of(client: Client) -> frozenset[str]:
    """Addresses of the workers that the scheduler knows now."""
    return frozenset(client.nthreads(callback_timeout=WORKER_SECONDS))


def _ask_all(client: Client, question: Callable[..., Any], *about: object) -> dict[str, Any]:
    """The answer of every worker by its address, or the exception that it raised instead."""
    try:
        answers: dict[str, Any] = client.run(
            question, *about, on_error="return", callback_timeout=WORKER_SECONDS
        )
    except TimeoutError:
        count = len(workers_of(client))  # where it is the scheduler that hangs, this raises
        raise MachineError(
            f"not all of the {count} workers answered within {WORKER_SECONDS} s: one hangs, or cannot be "
            "reached from the scheduler; end it, then run the same command again"
        ) from None
    return answers


def describe(client: Client) -> str:
    """A line about a cluster: how many work for it, where to watch, where they log."""
    count = len(workers_of(client))
    link = client.dashboard_link if importlib.util.find_spec("bokeh") else "none, as bokeh is not installed"
    return (
        f"{count} workers of {_address(client)}; dashboard: {link}; "
        "what workers log is repeated here (-v, --log-file)"
    )


def check_workers(client: Client, terms: Terms) -> dict[str, str]:
    """Ask every worker whether it can take part.

    Returns:
        Why not, by the address of those that cannot; they are logged.

    Raises:
        MachineError: none can, or one does not answer; the message says why.
    """
    unfit = obstacles(_ask_all(client, why_unfit, terms))
    if unfit and unfit.keys() >= workers_of(client):
        address, why = next(iter(unfit.items()))
        raise MachineError(f"worker {address} cannot take part: {why}")
    return unfit


def ask_worker(client: Client, terms: Terms, worker: str) -> Future[dict[str, Any]]:
    """Ask a worker whether it can take part; its answer is for `obstacles`, and is not waited for."""
    asked = client.run(why_unfit, terms, workers=[worker], on_error="return", asynchronous=True)
    assert isinstance(client.loop, BaseAsyncIOLoop), "tornado has no other"
    return asyncio.run_coroutine_threadsafe(asked, client.loop.asyncio_loop)


def obstacles(answers: Mapping[str, object]) -> dict[str, str]:
    """Of answers to `why_unfit`, or what was raised instead of one, those that say why; they are logged."""
    unfit = {address: _in_words(why) for address, why in answers.items() if why}
    for address, why in unfit.items():
        logger.warning("worker %s takes no part: %s", address, why)
    return unfit


def _in_words(why: object) -> str:
    if isinstance(why, OSError) and why.strerror:
        return why.strerror
    advice = "install the same citycover, python and torch there"
    return f"{type(why).__name__}: {why}; {advice}" if isinstance(why, Exception) else str(why)
