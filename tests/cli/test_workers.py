"""`--workers` and `--scheduler`: the same map, the same exit codes, nothing left running."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from bucket import BUCKET, Bucket, point_at, serving_bucket
from conftest import write_scene
from distributed import Client

from citycover.files import lease

CITYCOVER = (sys.executable, "-m", "citycover_cli")
DASK = (sys.executable, "-m", "dask")
FIXED = ("--window", "1024", "--precision", "fp32", "--batch", "1")


@dataclass(frozen=True)
class Cluster:
    """A scheduler of somebody else's, with two workers."""

    scheduler: subprocess.Popen[bytes]
    address: str


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """What processes that are started later talk to."""
    monkeypatch.setattr(lease, "BEAT", 0.2)
    monkeypatch.setattr(lease, "PATIENCE", 7.0)  # the killed one wrote every 5 s
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        yield bucket


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    sign = tmp_path / "scheduler.json"
    commands = [(*DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
    commands += [(*DASK, "worker", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0")] * 2
    with (tmp_path / "cluster.log").open("wb") as log:
        started = [
            subprocess.Popen([*command, "--scheduler-file", sign], stdout=log, stderr=log, cwd=tmp_path)
            for command in commands
        ]
    try:
        wait_for(lambda: sign.exists() and sign.stat().st_size > 0)
        yield Cluster(started[0], json.loads(sign.read_text())["address"])
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def wait_for(happened: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def start_map(scene: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    """A run in a process of its own, which has finished a block and not yet all."""
    command = [*CITYCOVER, "map", scene, "-o", out, *more, *FIXED]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: list((out / ".work" / "ledger").glob("*.json")) or process.poll() is not None)
    return process


def read(out: Path) -> np.ndarray:
    with rasterio.open(out / "landcover.tif") as product:
        return product.read(1)


def test_a_map_by_two_workers_is_the_map(
    citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = ("--probabilities", "--entropy", "--second", "--margin")
    assert citycover("map", scene, "-o", tmp_path / "alone", *layers).code == 0
    monkeypatch.setattr("citycover.machine.memory.peak_rss", lambda: 1)
    result = citycover("map", scene, "-o", tmp_path / "two", "--workers", 2, *layers)
    assert result.code == 0 and "2 workers of tcp://" in result.err and "dashboard" in result.err
    for path in (tmp_path / "alone").glob("*.tif"):
        with rasterio.open(path) as one, rasterio.open(tmp_path / "two" / path.name) as two:
            np.testing.assert_array_equal(one.read(), two.read(), path.name)
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    alone = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert (alone["workers"], run["workers"]) == (1, 2) and re.search(r"(?m)^ +workers +2$", result.out)
    assert run["peak_rss_bytes"] > 2**20, "workers hold more than the client is made to say"
    assert 0 < run["stages"]["forward"] <= run["sweep_s"] and 0 < run["forward_share"] <= 1
    windows = run["plan"]["windows"]
    assert run["windows"] == {"run": windows, "skipped": 0, "slots": windows}


def test_workers_and_a_scheduler_contradict_each_other(citycover, scene: Path, tmp_path: Path) -> None:
    result = citycover("map", scene, "-o", tmp_path / "out", "--workers", 2, "--scheduler", "tcp://x:1")
    assert result.code == 2 and "give one of them" in result.err


def test_a_scheduler_that_is_not_there_is_the_environments_fault(
    citycover, scene: Path, tmp_path: Path
) -> None:
    begin = time.monotonic()
    result = citycover("map", scene, "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == 4 and "no scheduler answers at tcp://127.0.0.1:9" in result.err
    assert time.monotonic() - begin < 20 and not (tmp_path / "out").exists()


def test_a_worker_of_the_scheduler_settles_the_plan_and_nothing_is_written(
    citycover, cluster: Cluster, scene: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    result = citycover("plan", scene, "--scheduler", cluster.address, "--json")
    plan = json.loads(result.out)
    assert set(tmp_path.rglob("*")) == before and "Traceback" not in result.err
    out = tmp_path / "out"
    run = json.loads(citycover("map", scene, "-o", out, "--scheduler", cluster.address, "--json").out)
    for name in ("window", "batch", "precision", "block_shape"):
        assert plan[name] == run["plan"][name]
    assert (plan["threads"], plan["device"]) == (1, run["device"]) and 1 <= plan["workers"] <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_and_the_run_goes_on_later(
    number: signal.Signals, code: int, citycover, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", (20_000, 500))
    out = tmp_path / "out"
    process = start_map(scene, out, "--workers", "2")
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "to go on" in said and "Traceback" not in said
    assert not psutil.wait_procs(family, timeout=10)[1]
    assert not (out / "item.json").exists()
    assert citycover("map", scene, "-o", out, *FIXED).code == 0
    assert citycover("map", scene, "-o", tmp_path / "alone", *FIXED).code == 0
    np.testing.assert_array_equal(read(out), read(tmp_path / "alone"))


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_told_and_finished_blocks_are_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    scene, out = write_scene(tmp_path / "scene.tif", (20_000, 500)), tmp_path / "out"
    process = start_map(scene, out, "--scheduler", cluster.address)
    cluster.scheduler.kill()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 4, said
    assert f"{cluster.address} was lost" in said and "finished blocks are kept" in said
    assert "Traceback" not in said
    assert list((out / ".work" / "ledger").glob("*.json")) and not (out / "item.json").exists()


@pytest.mark.slow
def test_workers_of_a_killed_client_end_and_a_later_run_goes_on(citycover, tmp_path: Path) -> None:
    scene, out = write_scene(tmp_path / "scene.tif", (20_000, 500)), tmp_path / "out"
    process = start_map(scene, out, "--workers", "2")
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert len(family) >= 2 and not psutil.wait_procs(family, timeout=20)[1]
    process.communicate()
    assert (out / ".work" / "lease").exists() and not (out / "item.json").exists()
    assert citycover("map", scene, "-o", out, *FIXED).code == 0
    assert citycover("map", scene, "-o", tmp_path / "alone", *FIXED).code == 0
    np.testing.assert_array_equal(read(out), read(tmp_path / "alone"))


@pytest.mark.slow
def test_a_cluster_of_a_killed_client_leaves_the_folder_to_a_later_run(
    citycover, cluster: Cluster, tmp_path: Path
) -> None:
    scene, out = write_scene(tmp_path / "scene.tif", (20_000, 500)), tmp_path / "out"
    process = start_map(scene, out, "--scheduler", cluster.address)
    process.kill()
    process.communicate()
    assert not (out / "item.json").exists()
    assert citycover("map", scene, "-o", out, "--scheduler", cluster.address, *FIXED).code == 0
    with Client(cluster.address, set_as_default=False) as client:
        running = client.run(lambda dask_worker: len(dask_worker.state.executing))
        assert set(running.values()) == {0}, "no worker is left with a run of the dead"
    assert citycover("map", scene, "-o", tmp_path / "alone", *FIXED).code == 0
    np.testing.assert_array_equal(read(out), read(tmp_path / "alone"))


@pytest.mark.slow
def test_machines_that_share_no_folder_map_together_and_another_client_goes_on(
    citycover, bucket: Bucket, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image, blocks and product lie in a bucket; whoever goes on has no copy of anything."""
    scene = write_scene(tmp_path / "scene.tif", (20_000, 500))
    assert citycover("map", scene, "-o", tmp_path / "alone", *FIXED).code == 0
    bucket.objects["im/scene.tif"] = scene.read_bytes()
    far = [f"s3://{BUCKET}/im/scene.tif", "--work", f"s3://{BUCKET}/work", "-o", f"s3://{BUCKET}/maps/a"]
    command = [*CITYCOVER, "map", *far, "--scheduler", cluster.address, *FIXED]
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "first"))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: any("/ledger-" in key for key in [*bucket.objects]) or process.poll() is not None)
        process.kill()
    begun = {key for key in bucket.objects if "/ledger-" in key}
    assert begun and "maps/a/item.json" not in bucket.objects
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "second"))
    assert citycover("map", *far, "--scheduler", cluster.address, *FIXED).code == 0
    (tmp_path / "landcover.tif").write_bytes(bucket.objects["maps/a/landcover.tif"])
    np.testing.assert_array_equal(read(tmp_path), read(tmp_path / "alone"))
    run = json.loads(bucket.objects["maps/a/run.json"])
    assert run["attempts"] == 2 and run["request"]["engine"]["work"] == f"s3://{BUCKET}/work"
    assert not [key for key in bucket.objects if key.startswith("work/")]
