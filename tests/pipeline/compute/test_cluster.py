import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bucket import BUCKET, Bucket, point_at, serving_bucket
from conftest import write_scene
from distributed import Client, KilledWorker, LocalCluster
from distributed.comm.core import CommClosedError
from hypothesis import given
from hypothesis import strategies as st
from making import make_scene, plan_of
from standin import StandIn, ask_again, make_store, open_pattern, run_on, standin_card

from citycover.compute import patience
from citycover.compute.cluster import compute as cluster
from citycover.compute.cluster import connect, dispatch, retries, roster, vigil, worker
from citycover.compute.cluster.compute import lease
from citycover.compute.cluster.connect import check_workers, open_cluster
from citycover.compute.cluster.dispatch import ClusterRun
from citycover.compute.cluster.roster import Roster
from citycover.compute.cluster.terms import Terms, local_versions
from citycover.compute.cluster.worker import (
    _check,
    _why_no_writer,
    forecast_job,
    request_stop,
    settle_job,
    why_unfit,
)
from citycover.engine.blocks import run_blocks
from citycover.engine.canvas import FinishedBlock
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.errors import MachineError, ModelError, StoppedError
from citycover.files import remote
from citycover.files.remote import RemotePath
from citycover.files.store import ObjectStore, PosixStore, put_text
from citycover.job.job import prepare_request
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.job.watch import Watch
from citycover.machine.device import choose_device
from citycover.plan.columns import Pieces, open_columns
from citycover.plan.plan import Block, Plan
from citycover.product.folder import claim_folder
from citycover.store.far import FarWork
from citycover.store.store import WorkingStore
from citycover.store.work import WorkFolder

CARD = standin_card()
PLAN = plan_of(make_scene((330, 200)), CARD, block=(48, 80), batch=2)
"""7 x 3 blocks."""


BOTH = pytest.mark.parametrize("folder", ["here", "bucket"], indirect=True)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """Where blocks may be kept; workers learn of it as they start."""
    with serving_bucket() as bucket, pytest.MonkeyPatch.context() as patch:
        point_at(bucket.url, patch)
        yield bucket


@pytest.fixture(scope="module")
def client(bucket: Bucket) -> Iterator[Client]:
    assert bucket.url
    with open_cluster(2, None) as client:
        yield client


@pytest.fixture
def folder(request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path) -> Iterator[WorkFolder]:
    """Held, with an unfinished run that keeps its blocks there, or in a bucket."""
    with contextlib.ExitStack() as stack:
        far = None
        if getattr(request, "param", "here") == "bucket":
            place = RemotePath(BUCKET, f"work/{tmp_path.name}")
            far = stack.enter_context(FarWork(place, threading.Event()))
            stack.callback(far.clear)
        folder = stack.enter_context(claim_folder(tmp_path / "out", far=far))
        make_store(folder.store, PLAN).close()
        yield folder


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def stored(folder: WorkFolder) -> dict[str, np.ndarray]:
    with WorkingStore.open(folder.store) as store:
        assert set(store.finished()) == {block.index for block in PLAN.blocks()}
        return {name: store.array(name).read(store.layout.window) for name in store.arrays}


@pytest.fixture(scope="module")
def in_process() -> dict[str, np.ndarray]:
    """The same blocks, without cluster and store."""
    arrays = {name: np.zeros(PLAN.shape, np.uint8) for name in ("classes", "confidence")}
    predictor = StandIn(CARD)(choose_device("cpu"))
    start = SweepInput(PLAN, predictor, partial(open_pattern, (330, 200)))
    for run in open_columns(PLAN.blocks(), set()):
        for block in sweep(start, run):
            for name, pixels in block.layers.items():
                arrays[name][block.block.window.slices] = pixels
    return arrays


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert len(np.unique(wanted["classes"])) > 2
    for name, pixels in wanted.items():
        np.testing.assert_array_equal(found[name], pixels)


@given(st.lists(st.integers(1, 40), max_size=12), st.integers(1, 9))
def test_runs_are_shared_out_whole_in_order_and_to_all_workers(lengths: list[int], workers: int) -> None:
    starts = np.cumsum([0, *lengths])
    runs = [range(a, b) for a, b in itertools.pairwise(starts)]
    source = Pieces(runs, sum(lengths))
    pieces = list(iter(lambda: source.draw(workers), ()))
    assert [k for piece in pieces for k in piece] == list(range(sum(lengths))) and not source.left
    assert all(len(piece) <= -(-sum(lengths) // workers) for piece in pieces)
    assert len(pieces) >= min(sum(lengths), workers)


@given(st.lists(st.integers(1, 9), max_size=6), st.data())
def test_what_is_put_back_is_drawn_again_and_all_of_it_once(lengths: list[int], data: st.DataObject) -> None:
    starts = np.cumsum([0, *lengths])
    source = Pieces([range(a, b) for a, b in itertools.pairwise(starts)], sum(lengths))
    done: list[int] = []
    while piece := source.draw(data.draw(st.integers(1, 5))):
        kept = data.draw(st.integers(1, len(piece)))
        done += piece[:kept]
        source.put_back(piece[kept:])
    assert sorted(done) == list(range(sum(lengths))) and not source.left


@BOTH
def test_two_workers_compute_the_pixels_of_one_process(
    client: Client, folder: WorkFolder, in_process: dict[str, np.ndarray]
) -> None:
    done, windows = [], []
    run = run_on(client, folder, PLAN, StandIn(CARD), Watch(advanced=done.append, predicted=windows.append))
    assert_same(stored(folder), in_process)
    assert sorted(done) == sorted(PLAN.blocks())
    assert run.windows["run"] >= PLAN.windows and run.windows["skipped"] == 0
    assert run.stages.seconds()["forward"] > 0
    assert not run.flying and "lease" not in folder.store.list("")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_computes_the_same_pixels(
    workers: int, folder: WorkFolder, in_process: dict[str, np.ndarray]
) -> None:
    with open_cluster(workers, None) as client:
        run_on(client, folder, PLAN, StandIn(CARD))
    assert_same(stored(folder), in_process)


@BOTH
def test_a_worker_that_is_killed_costs_nothing_but_its_block(
    client: Client, folder: WorkFolder, in_process: dict[str, np.ndarray]
) -> None:
    pids = list(client.run(os.getpid).values())
    killed = threading.Event()
    done: list[Block] = []

    def kill(block: Block) -> None:
        done.append(block)
        if not killed.is_set():
            killed.set()
            os.kill(pids[0], signal.SIGKILL)

    run_on(client, folder, PLAN, StandIn(CARD, seconds=0.05), Watch(advanced=kill))
    assert killed.is_set() and pids[0] not in client.run(os.getpid).values()
    assert sorted(done) == sorted(PLAN.blocks()), "each is told of once, whoever finished it"
    assert_same(stored(folder), in_process)


def test_a_worker_that_joins_is_given_what_another_has_not_begun(client: Client, tmp_path: Path) -> None:
    """One column: who came first was handed three quarters of it, and is busy until it is asked."""
    busy = tmp_path / "busy"
    busy.touch()
    plan = plan_of(make_scene((1400, 60)), CARD, block=(48, 80), batch=2)
    asked: list[int] = []

    class Run(ClusterRun):
        def _refill(self) -> None:
            second = max(client.nthreads())
            self.roster.unfit = {} if self.told else {second: "it comes later"}
            super()._refill()

        def _ask_back(self, idle: int) -> None:
            super()._ask_back(idle)
            asked.append(sum(flight.asked for flight in self.flying.values()))
            if asked[-1]:
                busy.unlink(missing_ok=True)

    client.wait_for_workers(2)
    processes = client.run(os.getpid)
    standin = StandIn(CARD, held=(processes[min(client.nthreads())], busy))
    with claim_folder(tmp_path / "out") as folder:
        make_store(folder.store, plan).close()
        run = run_on(client, folder, plan, standin, kind=Run)
        with WorkingStore.open(folder.store) as store:
            assert set(store.finished()) == {block.index for block in plan.blocks()}
            found = store.array("classes").read(store.layout.window)
    assert run.roster.most == 2 and max(asked) == 1
    start = SweepInput(plan, StandIn(CARD)(choose_device("cpu")), partial(open_pattern, (1400, 60)))
    wanted = [block.layers["classes"] for block in sweep(start, list(plan.blocks()))]
    np.testing.assert_array_equal(found, np.concatenate(wanted))


@pytest.mark.parametrize("trouble", ["broken", "stale"])
def test_what_befalls_a_worker_once_costs_a_block(
    trouble: str,
    client: Client,
    folder: WorkFolder,
    in_process: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.wait_for_workers(2)
    processes = set(client.run(os.getpid).values())
    sign = tmp_path / "sign"
    sign.touch()
    monkeypatch.setattr(patience, "PAUSE", 0.1)
    run_on(client, folder, PLAN, StandIn(CARD, once=(trouble, sign)))
    assert not sign.exists()
    # What a process that ends has logged comes soon, or not at all.
    assert (trouble == "stale") == ("is tried again in 0 s: the network drive was lost" in caplog.text)
    assert (trouble == "stale") == (processes <= set(client.run(os.getpid).values()))
    assert_same(stored(folder), in_process)


@pytest.fixture
def impatient(client: Client) -> Iterator[None]:
    """Workers that ask a store once."""
    before = client.run(ask_again, 0)
    yield
    client.run(ask_again, next(iter(before.values())))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("folder", ["bucket"], indirect=True)
@pytest.mark.parametrize("after", [0, 3])
def test_a_bucket_that_is_away_for_a_moment_costs_at_most_a_try(
    after: int,
    client: Client,
    bucket: Bucket,
    folder: WorkFolder,
    in_process: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before the first block, when workers are asked whether they can write, and in the middle."""
    monkeypatch.setattr(patience, "PAUSE", 0.1)
    seen: list[Block] = []

    def advanced(block: Block) -> None:
        seen.append(block)
        if len(seen) == after:
            bucket.busy = 2

    if not after:
        bucket.on_put = lambda key: _away_after(bucket, key)
    try:
        run_on(client, folder, PLAN, StandIn(CARD, seconds=0.02), Watch(advanced=advanced))
    finally:
        bucket.on_put = lambda _key: None
    assert "takes no part" not in caplog.text and not bucket.busy
    assert not after or "is tried again in 0 s: s3://" in caplog.text
    assert_same(stored(folder), in_process)
    assert len(seen) == len({block.index for block in seen}) == 21


def _away_after(bucket: Bucket, key: str) -> None:
    """The first worker that tries whether it can write finds it away."""
    if key.endswith(".probe"):
        bucket.on_put, bucket.busy = lambda _key: None, 2


@pytest.mark.parametrize("folder", ["bucket"], indirect=True)
def test_deaths_are_nobodys_fault_where_it_cannot_be_asked_what_is_there(
    bucket: Bucket, folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(work=SimpleNamespace(store=folder.store), retries=retries.Retries())
    monkeypatch.setattr(patience, "PAUSE", 0)
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    blocks = [PLAN.block(0, 0), PLAN.block(1, 0)]
    bucket.busy = 1
    ClusterRun._bury(run, blocks, KilledWorker("piece", SimpleNamespace(), 3))
    assert run.retries and run.retries.due() == [blocks] and not run.retries
    with pytest.raises(MachineError, match="workers died 4 times over block"):
        ClusterRun._bury(run, blocks, KilledWorker("piece", SimpleNamespace(), 3))


@pytest.mark.slow
def test_a_worker_that_hangs_is_started_anew(
    folder: WorkFolder,
    in_process: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a cluster of its own: on a busy machine others may seem to hang for so short a time, too."""
    monkeypatch.setattr(vigil, "SILENT_SECONDS", 5)
    monkeypatch.setattr(vigil, "FIRST_SECONDS", 5)
    sign = tmp_path / "sign"
    sign.touch()
    with open_cluster(2, None) as client:
        run_on(client, folder, PLAN, StandIn(CARD, once=("hangs", sign)))
    assert not sign.exists() and "has given no sign for" in caplog.text
    assert_same(stored(folder), in_process)


def test_a_trouble_that_does_not_pass_is_told(
    client: Client, folder: WorkFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "TRIES", 1)
    sign = tmp_path / "sign"
    sign.touch()
    with pytest.raises(MachineError, match="the network drive was lost"):
        run_on(client, folder, PLAN, StandIn(CARD, once=("stale", sign)))


@pytest.mark.parametrize("asked", [True, False])
def test_a_worker_that_joins_unfit_is_handed_nothing_more(
    asked: bool,
    client: Client,
    folder: WorkFolder,
    in_process: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was not asked in time hands back what it was given."""
    (tmp_path / "other.py").write_text("import citycover.version\ncitycover.version.__version__ = '0.1'\n")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", str(client.scheduler.address)]
    command += ["--preload", str(tmp_path / "other.py"), "--no-nanny", "--no-dashboard", "--nthreads", "1"]

    class Run(ClusterRun):
        """Hands it the first piece."""

        def _hand_out(self, piece: Sequence[Block], there: frozenset[str]) -> None:
            if asked or self.drawn:
                super()._hand_out(piece, there)
                return
            self.roster.unfit = {"somebody": "so that the piece is bound"}
            super()._hand_out(piece, frozenset(unfit))
            self.roster.unfit = {}

    versioned = replace(Terms("any"), versions=local_versions())
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=tmp_path, env=paths, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: check_workers(client, versioned))
            if not asked:
                monkeypatch.setattr(roster, "ask_worker", _as_if_fit)
            unfit = check_workers(client, versioned)
            run = run_on(client, folder, PLAN, StandIn(CARD), kind=Run, versions=local_versions())
        finally:
            process.terminate()
    assert ["it has citycover 0.1, the client has" in why for why in unfit.values()] == [True]
    assert run.roster.unfit == unfit
    assert_same(stored(folder), in_process)


def test_a_worker_that_is_slow_to_answer_is_waited_for_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, Future[dict[str, object]]]] = []
    there = {"quick", "slow", "cut off", "other", "leaves"}

    def ask(_client: object, _terms: Terms, worker: str) -> Future[dict[str, object]]:
        asked.append((worker, Future()))
        return asked[-1][1]

    monkeypatch.setattr(roster, "workers_of", lambda _client: frozenset(there))
    monkeypatch.setattr(roster, "ask_worker", ask)
    watched = Roster(SimpleNamespace(), Terms("run"))
    assert not watched.there() and sorted(worker for worker, _ in asked) == sorted(there)
    futures = dict(asked)
    futures["quick"].set_result({"quick": None})
    futures["cut off"].set_result({"cut off": CommClosedError()})
    futures["other"].set_result({"other": "it has another version"})
    there.remove("leaves")
    assert watched.there() == {"quick"} and futures["leaves"].cancelled()
    futures["slow"].set_result({"slow": None})
    assert watched.there() == {"quick", "slow"}
    assert [worker for worker, _ in asked[5:]] == ["cut off"], "it is asked again, and nobody else is"
    assert watched.unfit == {"other": "it has another version"} and watched.most == 2
    watched.leave()
    assert asked[5][1].cancelled()


def test_a_cluster_whose_only_worker_does_not_answer_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "workers_of", lambda _client: frozenset({"hung"}))
    monkeypatch.setattr(roster, "ask_worker", lambda *_: Future())
    monkeypatch.setattr(roster, "WORKER_SECONDS", -1)
    with pytest.raises(MachineError, match=r"\(hung is unfit: it does not answer\)"):
        Roster(SimpleNamespace(), Terms("run")).there()


def test_a_cluster_that_loses_all_workers_before_the_plan_is_settled_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = list[tuple[object, ...]]()
    client = SimpleNamespace(
        status="running",
        submit=lambda *_, **__: SimpleNamespace(done=lambda: False),
        run=lambda *what, **_: told.append(what),
    )
    monkeypatch.setattr(cluster, "workers_of", lambda _client: frozenset())
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.3)
    stop = threading.Event()
    with pytest.raises(MachineError, match="workers died while the network was loaded"):
        cluster._ask_one(client, {}, stop, "run", len)
    stop.set()
    with pytest.raises(StoppedError):
        cluster._ask_one(client, {}, stop, "another", len)
    assert told == [(request_stop, "run"), (request_stop, "another")], "or they go on with their trials"
    client.status = "connecting"
    with pytest.raises(StoppedError):
        cluster._ask_one(client, {}, stop, "a third", len)
    assert len(told) == 2, "a scheduler that is lost is not waited for"


def test_a_worker_leaves_off_with_trials_whose_client_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worker, "_process", worker._Process())
    state = SimpleNamespace(nthreads=torch.get_num_threads())
    monkeypatch.setattr(worker, "get_worker", lambda: SimpleNamespace(state=state))
    scene = write_scene(tmp_path / "scene.tif", (96, 96))
    engine = EngineOptions(memory=64, precision="fp32")  # a window is tried to see what it takes
    job = prepare_request(MapRequest(Imagery((str(scene),)), tmp_path / "out", engine=engine))
    assert settle_job(job, {}, Terms("one")).plan.windows
    request_stop("other")
    for ask in (partial(settle_job, job, {}), partial(forecast_job, job)):
        with pytest.raises(StoppedError):
            ask(Terms("other"))
    assert settle_job(job, {}, Terms("one")).plan.windows


def _flying(worker: str) -> vigil.Flying:
    return vigil.Flying(SimpleNamespace(), (), frozenset(), worker)


@pytest.mark.parametrize(("error", "retired"), [(None, []), (KeyError("gone"), []), (ValueError(), ["one"])])
def test_a_silent_worker_is_started_anew_or_let_go(
    error: Exception | None, retired: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may leave by itself meanwhile, and one without a nanny has nobody to start it."""
    gone: list[str] = []

    def restart(workers: list[str], **_: object) -> None:
        if error:
            raise error

    client = SimpleNamespace(
        restart_workers=restart, retire_workers=lambda workers, **_: gone.extend(workers)
    )
    monkeypatch.setattr(vigil, "FIRST_SECONDS", -1)
    flight = _flying("one")
    vigil.Vigil(client).wake([flight], frozenset({"one"}))
    assert flight.worker is None and gone == retired


def test_what_was_asked_of_a_worker_that_died_is_asked_of_the_next() -> None:
    flight = _flying("one")
    watcher = vigil.Vigil(SimpleNamespace())
    flight.asked = True
    watcher.heard(flight, "one")
    assert flight.asked
    watcher.heard(flight, "another")
    assert not flight.asked


def test_a_stop_does_not_wait_for_ever_for_a_worker_that_hangs(
    client: Client, folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_ANSWER_SECONDS", 1)
    monkeypatch.setattr(dispatch, "_STOP_SECONDS", 1)
    client.wait_for_workers(2)
    pid = next(iter(client.run(os.getpid).values()))
    stop = threading.Event()

    def hang(_block: object) -> None:
        if not stop.is_set():
            os.kill(pid, signal.SIGSTOP)
            stop.set()

    try:
        with pytest.raises(StoppedError):
            run_on(client, folder, PLAN, StandIn(CARD, seconds=0.05), Watch(advanced=hang, stop=stop))
    finally:
        os.kill(pid, signal.SIGCONT)


def _as_if_fit(_client: Client, _terms: Terms, worker: str) -> Future[dict[str, None]]:
    answer: Future[dict[str, None]] = Future()
    answer.set_result({worker: None})
    return answer


@BOTH
def test_a_stopped_run_keeps_its_blocks_and_goes_on(
    client: Client, folder: WorkFolder, in_process: dict[str, np.ndarray]
) -> None:
    stop = threading.Event()
    slow = StandIn(CARD, seconds=0.05)
    with pytest.raises(StoppedError):
        run_on(client, folder, PLAN, slow, Watch(advanced=lambda _block: stop.set(), stop=stop))
    with WorkingStore.open(folder.store) as store:
        kept = set(store.finished())
    assert 0 < len(kept) < 21
    assert not any(client.processing().values()), "no worker goes on after the lock is let go"
    again: list[tuple[int, int]] = []
    run_on(client, folder, PLAN, slow, Watch(advanced=lambda block: again.append(block.index)))
    assert not kept & set(again)
    assert_same(stored(folder), in_process)


@pytest.mark.timeout(60)
def test_a_stop_that_comes_with_the_end_of_a_piece_is_not_waited_on(
    client: Client, folder: WorkFolder
) -> None:
    stop = threading.Event()

    class Run(ClusterRun):
        def _wait(self) -> str | None:
            if (key := super()._wait()) is not None:
                stop.set()
            return key

    with pytest.raises(StoppedError):
        run_on(client, folder, PLAN, StandIn(CARD, seconds=0.02), Watch(stop=stop), Run)


def test_a_script_that_each_worker_would_run_again_is_told_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import tempfile\n"  # a folder of its own for each that runs it: none is stopped by another's lock
        "from pathlib import Path\n"
        "import citycover\n"
        "from citycover.synth.write import write_city\n"
        "folder = Path(tempfile.mkdtemp())\n"
        "write_city(folder / 'city', 64)\n"
        "imagery = citycover.Imagery((str(folder / 'city/image.tif'),))\n"
        "engine = citycover.EngineOptions(workers=1)\n"
        "citycover.map_scene(citycover.MapRequest(imagery, folder / 'map', engine=engine))\n"
    )
    run = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    *_, advice = run.stderr.splitlines()
    assert advice.startswith("citycover.errors.MachineError: 1 worker processes were asked for"), run.stderr
    assert 'if __name__ == "__main__":' in advice
    assert run.stderr.count("ConfigError: a worker process reads the script") == 1, "it did not ask again"


def test_a_network_that_fails_far_away_is_told_here(client: Client, folder: WorkFolder) -> None:
    with pytest.raises(ModelError, match="not finite"):
        run_on(client, folder, PLAN, StandIn(CARD, value=np.nan))


@BOTH
def test_workers_that_cannot_take_part_are_named_with_the_reason(client: Client, folder: WorkFolder) -> None:
    with lease(folder) as terms:
        good = replace(terms, versions=local_versions(), files=((__file__, Path(__file__).stat().st_size),))
        check_workers(client, good)
        bad = {
            "install the same version": replace(good, versions=(("torch", "0.1"),)),
            "give --work": replace(good, store=PosixStore(folder.out / "elsewhere")),
            "no bucket 'elsewhere'": replace(good, store=ObjectStore(RemotePath("elsewhere", "work"))),
            "belongs to another run": replace(good, run="another"),
            "cannot see the input": replace(good, files=((__file__, 1),)),
            "cannot see the model": replace(good, models=((__file__, "0" * 64),)),
        }
        for reason, terms_ in bad.items():
            with pytest.raises(MachineError, match=reason):
                check_workers(client, terms_)


def test_a_worker_that_is_asked_twice_at_once_is_fit(tmp_path: Path) -> None:
    """As it joins, and as it begins a piece."""
    place = PosixStore(tmp_path)
    terms = Terms("run", place)
    put_text(place, "lease", terms.run)
    begin = threading.Barrier(8)

    def ask(_number: int) -> list[str | None]:
        begin.wait()
        return [_why_no_writer(place, terms) for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [[None] * 100] * 8
    assert place.list("") == ("lease",)


def test_a_worker_that_is_not_let_in_is_unfit_and_one_that_finds_it_away_says_so(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    terms = Terms("run", ObjectStore(RemotePath(BUCKET, "work/asked")))
    bucket.denied = True
    try:
        assert "access is denied" in str(why_unfit(terms))
    finally:
        bucket.denied = False
    bucket.busy = 1
    with pytest.raises(ConnectionAbortedError) as away:
        why_unfit(terms)
    bucket.busy = 1
    with pytest.raises(MachineError, match=r"s3://maps/work/asked/lease: the object store does not do it"):
        _check(terms)
    assert connect.obstacles({"one": away.value, "two": None, "three": ValueError("x")}) == {
        "one": away.value.strerror,
        "three": "ValueError: x; install the same citycover, python and torch there",
    }
    assert "worker one takes no part: s3://maps/work/asked/lease" in caplog.text


@pytest.mark.parametrize("folder", ["bucket"], indirect=True)
def test_a_bucket_that_is_away_in_the_end_hides_nothing(bucket: Bucket, folder: WorkFolder) -> None:
    def run() -> None:
        with lease(folder):
            bucket.denied = True
            raise StoppedError

    try:
        with pytest.raises(StoppedError):
            run()
    finally:
        bucket.denied = False


def test_a_worker_that_hangs_is_told_of_in_time(
    client: Client, folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.wait_for_workers(2)  # one may be on its way back from the test before
    monkeypatch.setattr(connect, "WORKER_SECONDS", 2)
    pid = next(iter(client.run(os.getpid).values()))
    os.kill(pid, signal.SIGSTOP)
    try:
        with lease(folder) as terms, pytest.raises(MachineError, match="not all of the 2 workers answered"):
            check_workers(client, terms)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_scheduler_that_does_not_answer_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(MachineError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"),
        open_cluster(None, "tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_who_is_no_scheduler_is_told_from_one(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing, and a server of pages, whose words are a size of many exabytes."""
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.5)

    def answer_one() -> socket.socket:
        met, _ = server.accept()
        met.sendall(answer)
        return met

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        answered, said = thread.submit(answer_one), f"no scheduler answers at {address}"
        with pytest.raises(MachineError, match=said), open_cluster(None, address):
            pass
        answered.result().close()


@pytest.mark.parametrize(
    ("status", "error"),
    [("closed", RuntimeError()), ("connecting", OSError()), ("running", CommClosedError())],
)
def test_whatever_a_lost_scheduler_breaks_is_told_as_its_loss(status: str, error: Exception) -> None:
    client = SimpleNamespace(status=status, scheduler=SimpleNamespace(address="tcp://there:1"))
    said = r"tcp://there:1 was lost .* finished blocks are kept"
    with pytest.raises(MachineError, match=said), connect._loss_told(client):
        raise error


def test_an_error_while_the_scheduler_answers_stays_what_it_is() -> None:
    client = SimpleNamespace(status="running", scheduler=SimpleNamespace(address="tcp://there:1"))
    with pytest.raises(KeyError), connect._loss_told(client):
        raise KeyError


@BOTH
def test_a_worker_drops_its_block_when_a_later_run_took_the_folder(
    client: Client, folder: WorkFolder
) -> None:
    def take_over(_block: object) -> None:
        put_text(folder.store, "lease", "a later run")

    with pytest.raises(MachineError, match="taken over"):
        run_on(client, folder, PLAN, StandIn(CARD, seconds=0.02), Watch(advanced=take_over))


def test_a_store_that_fails_ends_the_sweep_with_its_error() -> None:
    class Full:
        def finished(self, _among: Sequence[Block] | None) -> set[tuple[int, int]]:
            return set()

        def write(self, finished: FinishedBlock) -> None:
            raise OSError("no space")

    tall = plan_of(make_scene((4000, 60)), CARD, block=(48, 80))
    start = SweepInput(tall, StandIn(CARD)(choose_device("cpu")), partial(open_pattern, (4000, 60)))
    with pytest.raises(OSError, match="no space"):
        run_blocks(start, Full(), lambda _block: None)


@pytest.mark.slow
def test_a_block_that_kills_its_workers_is_named(folder: WorkFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "ALLOWED_FAILURES", 1)
    with open_cluster(2, None) as client, pytest.raises(MachineError, match=r"died 2 times over block \("):
        run_on(client, folder, PLAN, StandIn(CARD, deadly=_number_of_a_window(PLAN)))


@pytest.mark.slow
def test_deaths_count_only_where_nothing_was_finished_between(
    folder: WorkFolder,
    in_process: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(connect, "ALLOWED_FAILURES", 1)
    with open_cluster(1, None) as client:
        run_on(client, folder, PLAN, StandIn(CARD, seconds=0.05, batches=12))
    assert caplog.text.count("workers died 2 times") >= 2
    assert_same(stored(folder), in_process)


def _number_of_a_window(plan: Plan) -> int:
    """First number of the window in the middle, which few others share."""
    row, col = plan.y.start(plan.y.count // 2), plan.x.start(plan.x.count // 2)
    return (row * 7 ^ col * 5) & 255


def test_what_crosses_the_wire_is_small(tmp_path: Path) -> None:
    import cloudpickle

    from citycover.compute.cluster.terms import ModelFactory, Work
    from citycover.model.joint import read_map_model

    big = plan_of(make_scene((200_000, 200_000)), CARD)
    store = PosixStore(tmp_path)
    terms = Terms("run", store, versions=local_versions())
    work = Work(
        terms, big, ModelFactory(read_map_model(["spectral-rgb"])), partial(open_pattern, (1, 1)), store
    )
    column = next(open_columns(big.blocks(), set()))
    assert len(column) > 90 and len(cloudpickle.dumps((work, column))) < 30_000


@pytest.mark.slow
def test_adaptive_workers_come_while_there_is_work(
    folder: WorkFolder, in_process: dict[str, np.ndarray]
) -> None:
    """A cluster that begins with one worker gets more, and the pixels are those of one process."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, processes=True) as cluster:
        cluster.adapt(minimum=1, maximum=3, interval="100ms", target_duration="100ms", wait_count=50)
        with open_cluster(None, cluster.scheduler_address) as client:
            run = run_on(client, folder, PLAN, StandIn(CARD, seconds=0.1))
    assert run.roster.most > 1
    assert_same(stored(folder), in_process)
