"""A region from the command line: killed, gone on with, in shards, unchanged, with faults in it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import write_scene

FILE = """
name = "north"
out = "products"
model = "spectral-rgbn"
[[scenes]]
files = ["im/*.tif"]
[engine]
precision = "fp32"
threads = 1
[areas]
"""


def made(folder: Path, scenes: int) -> Path:
    """A region file and its images, of several sizes."""
    (folder / "im").mkdir()
    for number in range(scenes):
        shape = (30 + 7 * number, 50 + 11 * (number % 3))
        values = np.random.default_rng(number).integers(30, 220, (4, *shape), np.uint8)
        write_scene(folder / "im" / f"scene{number:02}.tif", shape, values=values)
    path = folder / "region.toml"
    path.write_text(FILE)
    return path


def begun(region: Path, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "citycover_cli", "run", str(region), "-q", *more]
    return subprocess.Popen(words, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> int:
    _, said = process.communicate(timeout=280)
    assert b"Traceback" not in said, said.decode()
    return process.returncode


def maps(products: Path) -> dict[str, bytes]:
    """Pixels of all maps, by scene."""
    found = {}
    for path in sorted((products / "maps").glob("*/landcover.tif")):
        with rasterio.open(path) as raster:
            found[path.parent.name] = raster.read().tobytes()
    return found


def test_a_region_says_what_it_would_do_does_it_and_says_that_it_is_done(citycover, tmp_path: Path) -> None:
    region = made(tmp_path, 2)
    dry = citycover("run", region, "--dry-run")
    assert dry.code == 0 and "2 to do, 0 done" in dry.out and not (tmp_path / "products").exists()
    first = citycover("run", region)
    assert first.code == 0 and "2/2 scene01 mapped" in first.err and "2 mapped" in first.out
    again = citycover("run", region, "--json")
    assert again.code == 0 and json.loads(again.out)["counts"] == {"done": 2}
    status = citycover("status", region)
    assert status.code == 0 and status.out.startswith("north: 2 done")
    assert json.loads(citycover("status", region, "--json").out)["counts"] == {"done": 2}
    (tmp_path / "im" / "bad.tif").write_bytes(b"II*\0")
    bad = citycover("run", region)
    assert bad.code == 3 and "bad failed: " in bad.err and "check that the file is whole" in bad.out
    assert "bad" in citycover("status", region).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "missing.toml"), "cannot be read"),
        (("run", "region.toml", "--shard", "0/2"), "--shard takes i/n"),
        (("run", "region.toml", "--only", "z"), "no such scene"),
        (("run", "region.toml", "--limit", "0"), "greater than or equal to 1"),
        (("status", "missing.toml"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(
    citycover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    made(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    result = citycover(*words)
    assert result.code == 2 and said in result.err and not (tmp_path / "products").exists()


def test_another_run_of_the_region_is_left_alone(citycover, tmp_path: Path) -> None:
    from citycover.files.lock import RunLock

    region = made(tmp_path, 1)
    assert citycover("run", region, "-q").code == 0
    with RunLock(tmp_path / "products/.region/locks/1-of-1"):
        assert citycover("run", region).code == 6
        assert citycover("run", region, "--shard", "1/1").code == 6


def test_sigterm_ends_it_and_the_same_command_goes_on(citycover, tmp_path: Path) -> None:
    region = made(tmp_path, 3)
    process = begun(region)
    deadline = time.monotonic() + 240
    while not (tmp_path / "products/maps/scene00").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code = ended(process)
    assert code in (143, 0)
    end = "exit code 0" if code == 0 else "stopped"
    assert citycover("status", region).out.rstrip().endswith(end)
    assert citycover("run", region, "-q").code == 0
    assert len(maps(tmp_path / "products")) == 3


@pytest.mark.slow
def test_twelve_scenes_killed_three_times_and_in_three_shards(tmp_path: Path) -> None:
    """Killed at random moments, and in three shards at once: the products of one straight run."""
    region = made(tmp_path, 12)
    begin = time.monotonic()
    assert ended(begun(region)) == 0
    whole = time.monotonic() - begin
    straight = maps(tmp_path / "products")
    assert len(straight) == 12
    rng = random.Random(0)
    (tmp_path / "products").rename(tmp_path / "straight")
    for _ in range(3):
        process = begun(region)
        time.sleep(rng.uniform(0.2, 0.9) * whole)
        process.kill()
        process.communicate()
    assert ended(begun(region)) == 0
    assert maps(tmp_path / "products") == straight
    (tmp_path / "products").rename(tmp_path / "killed")
    shards = [begun(region, "--shard", f"{k}/3") for k in (1, 2, 3)]
    assert [ended(process) for process in shards] == [0, 0, 0]
    assert maps(tmp_path / "products") == straight
    before = {path: path.stat().st_ino for path in (tmp_path / "products").glob("maps/*/landcover.tif")}
    assert ended(begun(region)) == 0
    assert before == {
        path: path.stat().st_ino for path in (tmp_path / "products").glob("maps/*/landcover.tif")
    }
