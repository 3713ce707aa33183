"""`kill -9` at any instant: whatever was being written, the same command goes on to the same product."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import write_scene
from killing import map_until

KILLS = int(os.environ.get("CITYCOVER_KILLS", "20"))
WRITES = 400
"""A run is killed after at most so many of its 574: 380 for its blocks, the others to publish."""


def run(write: int | None, scene: Path, out: Path) -> int:
    """Exit code of a run in a process of its own; negative: the signal that ended it."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["citycover.run.map"])  # torch, loaded once for all runs
    arguments = [str(scene), "-o", str(out), "--window", "256", "--precision", "fp32", "--threads", "1"]
    arguments += ["--probabilities", "--entropy", "--second", "--margin"]
    process = processes.Process(target=map_until, args=(write, arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def pixels(out: Path) -> list[np.ndarray]:
    found = []
    for name in ("landcover", "confidence", "probabilities", "entropy", "second", "margin"):
        with rasterio.open(out / f"{name}.tif") as dataset:
            found.append(dataset.read())
    return found


@pytest.mark.slow
def test_runs_killed_at_random_writes_go_on_to_identical_pixels(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", (1100, 1300))
    assert run(None, scene, tmp_path / "straight") == 0
    wanted = pixels(tmp_path / "straight")
    assert len(np.unique(wanted[0])) > 2
    chance = random.Random(20)
    kills, products, resumed = 0, 0, 0
    while True:
        out = tmp_path / f"killed-{products}"
        resumed += bool(list((out / ".work" / "ledger").glob("*.json")))
        code = run(chance.randrange(WRITES) if kills < KILLS else None, scene, out)
        assert code in (0, -signal.SIGKILL)
        kills += code == -signal.SIGKILL
        if (out / "item.json").exists():  # killed or not: the sign says that the product is whole
            for found, straight in zip(pixels(out), wanted, strict=True):
                np.testing.assert_array_equal(found, straight)
            products += 1
            if kills >= KILLS:
                break
    print(f"{kills} kills, {resumed} runs that went on from finished blocks, {products} products")
    assert resumed >= KILLS // 2
