"""`kill -9` at any instant: whatever was being written, the same command goes on to the same product."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from bucket import BUCKET, serving_bucket
from conftest import write_scene
from killing import map_in_a_bucket_until, map_until
from labelled import write_labelled_city

KILLS = int(os.environ.get("CITYCOVER_KILLS", "20"))
WRITES = 400
"""A run is killed after at most so many; with all layers 380 of 574 are for blocks, the rest to publish."""


PLAIN = ("landcover", "confidence", "probabilities", "entropy", "second", "margin")
CHANGE = ("landcover", "confidence", "change")


def run(write: int | None, given: list[str], out: Path) -> int:
    arguments = [*given, "-o", str(out), "--precision", "fp32", "--threads", "1"]
    return code_of(map_until, write, arguments)


def code_of(function: Callable[..., None], *arguments: object) -> int:
    """Exit code of a run in a process of its own; negative: the signal that ended it."""
    process = started(function, *arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def started(function: Callable[..., None], *arguments: object) -> BaseProcess:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["citycover.run.map"])  # torch, loaded once for all runs
    process = processes.Process(target=function, args=arguments)
    process.start()
    return process


def pixels(out: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    found = []
    for name in names:
        with rasterio.open(out / f"{name}.tif") as dataset:
            found.append(dataset.read())
    return found


def all_layers(folder: Path) -> list[str]:
    scene = write_scene(folder / "scene.tif", (1100, 1300))
    return [str(scene), "--window", "256", "--probabilities", "--entropy", "--second", "--margin"]


def labels_and_change(folder: Path) -> list[str]:
    city = write_labelled_city(folder, 1100)
    labels = ["--labels", str(city / "labels_10m.tif"), "--change"]
    return [str(city / "image.tif"), "--model", str(city / "model.pt"), "--window", "128", *labels]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "names"), [(all_layers, PLAIN), (labels_and_change, CHANGE)])
def test_runs_killed_at_random_writes_go_on_to_identical_pixels(
    tmp_path: Path, make: Callable[[Path], list[str]], names: tuple[str, ...]
) -> None:
    given = make(tmp_path)
    assert run(None, given, tmp_path / "straight") == 0
    wanted = pixels(tmp_path / "straight", names)
    assert len(np.unique(wanted[0])) > 2
    chance = random.Random(20)
    kills, products, resumed = 0, 0, 0
    while True:
        out = tmp_path / f"killed-{products}"
        resumed += bool(list((out / ".work" / "ledger").glob("*.json")))
        code = run(chance.randrange(WRITES) if kills < KILLS else None, given, out)
        assert code in (0, -signal.SIGKILL)
        kills += code == -signal.SIGKILL
        if (out / "item.json").exists():  # killed or not: the sign says that the product is whole
            for found, straight in zip(pixels(out, names), wanted, strict=True):
                np.testing.assert_array_equal(found, straight)
            products += 1
            if kills >= KILLS:
                break
    print(f"{kills} kills, {resumed} runs that went on from finished blocks, {products} products")
    assert resumed >= KILLS // 2


@pytest.mark.slow
def test_runs_with_blocks_in_a_bucket_killed_at_random_changes_go_on_on_other_machines(
    tmp_path: Path,
) -> None:
    scene = write_scene(tmp_path / "scene.tif", (1100, 1300))
    given = [str(scene), "--window", "256", "--precision", "fp32", "--threads", "1"]
    assert code_of(map_until, None, [*given, "-o", str(tmp_path / "straight")]) == 0
    wanted = {name: (tmp_path / "straight" / f"{name}.tif").read_bytes() for name in CHANGE[:2]}
    chance = random.Random(18)
    kills, products, machines, resumed = 0, 0, 0, 0
    with serving_bucket() as bucket:
        while kills < KILLS or not products:
            out = f"maps/{products}"
            more = ["-o", f"s3://{BUCKET}/{out}", "--work", f"s3://{BUCKET}/work", "--skip-finished"]
            change = chance.randrange(110) if kills < KILLS else None
            resumed += any("/ledger-" in key for key in bucket.objects)
            machine = tmp_path / f"machine-{machines}"
            code = code_of(map_in_a_bucket_until, change, [*given, *more], bucket.url, machine)
            assert code in (0, -signal.SIGKILL)
            kills, machines = kills + (code == -signal.SIGKILL), machines + 1
            if f"{out}/item.json" in bucket.objects:
                assert {name: bucket.objects[f"{out}/{name}.tif"] for name in wanted} == wanted
            if code == 0:
                assert not [key for key in bucket.objects if key.startswith("work/")]
                products += 1
    print(
        f"{kills} kills on {machines} machines, {resumed} went on from finished blocks, {products} products"
    )
    assert resumed >= KILLS // 2


@pytest.mark.slow
def test_a_run_that_slept_while_another_took_over_spoils_nothing(tmp_path: Path) -> None:
    """Wherever it fell asleep: it ends when it wakes, or had ended, and what is there is whole."""
    scene = write_scene(tmp_path / "scene.tif", (700, 900))
    given = [str(scene), "--window", "256", "--precision", "fp32", "--threads", "1"]
    assert code_of(map_until, None, [*given, "-o", str(tmp_path / "straight")]) == 0
    wanted = {name: (tmp_path / "straight" / f"{name}.tif").read_bytes() for name in CHANGE[:2]}
    chance, codes = random.Random(18), []
    for number in range(KILLS // 2):
        with serving_bucket() as bucket:
            more = ["-o", f"s3://{BUCKET}/map", "--work", f"s3://{BUCKET}/work", "--skip-finished"]
            run = [[*given, *more], bucket.url]
            change, here = chance.randrange(80), tmp_path / f"first-{number}"
            sleeper = started(map_in_a_bucket_until, change, *run, here, signal.SIGSTOP)
            wait_for_sleep(sleeper)
            assert code_of(map_in_a_bucket_until, None, *run, tmp_path / f"second-{number}") == 0
            assert {name: bucket.objects[f"map/{name}.tif"] for name in wanted} == wanted
            if sleeper.is_alive():
                os.kill(sleeper.pid or 0, signal.SIGCONT)
            sleeper.join(60)
            codes.append((change, sleeper.exitcode))
            if "map/item.json" in bucket.objects:
                assert {name: bucket.objects[f"map/{name}.tif"] for name in wanted} == wanted
            assert code_of(map_in_a_bucket_until, None, *run, tmp_path / f"third-{number}") == 0
            assert {name: bucket.objects[f"map/{name}.tif"] for name in wanted} == wanted
            assert not [key for key in bucket.objects if key.startswith("work/")]
    print(codes)
    assert {code for _, code in codes} <= {0, 4, 6} and {code for _, code in codes} & {4, 6}


def wait_for_sleep(process: BaseProcess) -> None:
    """Until it has fallen asleep, or ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_alive() and psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.02)
