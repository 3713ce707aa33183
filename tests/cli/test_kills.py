"""`kill -9` at any instant: whatever was being written, the same command goes on to the same product."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import write_scene
from killing import map_until
from labelled import write_labelled_city

KILLS = int(os.environ.get("CITYCOVER_KILLS", "20"))
WRITES = 400
"""A run is killed after at most so many; with all layers 380 of 574 are for blocks, the rest to publish."""


PLAIN = ("landcover", "confidence", "probabilities", "entropy", "second", "margin")
CHANGE = ("landcover", "confidence", "change")


def run(write: int | None, given: list[str], out: Path) -> int:
    """Exit code of a run in a process of its own; negative: the signal that ended it."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["citycover.run.map"])  # torch, loaded once for all runs
    arguments = [*given, "-o", str(out), "--precision", "fp32", "--threads", "1"]
    process = processes.Process(target=map_until, args=(write, arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


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
