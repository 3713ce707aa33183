"""Twelve scenes by the command line, as nobody watches it: killed, gone on with, changed, in parts.

Some minutes: `make test-region`.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from conftest import write_scene

pytestmark = pytest.mark.slow

REGION = """name = "twelve"
out = "{out}"
model = "{model}"
[[scenes]]
files = ["im/*.tif"]
[[scenes]]
files = ["sheets/*/*.tif", "bands/*/*.tif"]
by = "folder"
[engine]
precision = "fp32"
threads = 1
window = 256
batch = 2
block = [512, 512]
[policy]
retries = 0
"""

SIZES = {
    "a": (300, 400),
    "b": (1100, 500),
    "c": (64, 2000),
    "d": (1, 1),
    "e": (1300, 1300),
    "f": (700, 90),
    "g": (515, 1029),
    "h": (900, 900),
}

GOOD = {*SIZES, "four", "two"}

FAILED = {"corrupt": "failed", "nowhere": "failed"}


def image(path: Path, seed: int, shape: tuple[int, int], **changes: Any) -> Path:
    values = np.random.default_rng(seed).integers(30, 220, (4, *shape), np.uint8)
    return write_scene(path, shape, values=values, **changes)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Eight files of different sizes, one that is cut, one without a CRS, four sheets, bands in two files."""
    for seed, (name, shape) in enumerate(SIZES.items()):
        image(tmp_path / f"im/{name}.tif", seed, shape)
    image(tmp_path / "im/nowhere.tif", 20, (300, 300), crs=None)
    whole = image(tmp_path / "im/corrupt.tif", 21, (300, 300))
    whole.write_bytes(whole.read_bytes()[:200])
    for row in (0, 1):
        for col in (0, 1):
            at = Affine(1, 0, 500_000 + 400 * col, 0, -1, 5_800_000 - 300 * row)
            image(tmp_path / f"sheets/four/{row}{col}.tif", 30 + 2 * row + col, (300, 400), transform=at)
    names = ("red", "green", "blue", "nir")
    for part in (0, 2):
        pixels = np.random.default_rng(40 + part).integers(30, 220, (2, 600, 600), np.uint8)
        path = tmp_path / f"bands/two/{part}.tif"
        write_scene(path, (600, 600), 2, values=pixels, descriptions=names[part : part + 2])
    return tmp_path


@dataclass(frozen=True)
class Runs:
    """Runs of one region file."""

    file: Path

    @classmethod
    def into(cls, place: Path, out: str, model: str = "spectral-rgbn") -> Runs:
        file = place / f"{out}.toml"
        file.write_text(REGION.format(out=out, model=model))
        return cls(file)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "citycover_cli", "run", str(self.file), "-q", *more]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def run(self, *more: str) -> dict[str, str]:
        """To the end; what became of each scene that had something to do."""
        assert self.start(*more).wait(600) == 3, "two scenes fail"
        return {scene["scene"]: scene["what"] for scene in self.history[-1]["scenes"]}

    @property
    def out(self) -> Path:
        return self.file.with_suffix("")

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / "runs.jsonl").read_text().splitlines()]

    def products(self) -> Mapping[str, bytes]:
        """The raster of each map, to the byte."""
        return {path.parent.name: path.read_bytes() for path in self.out.glob("maps/*/landcover.tif")}

    def times(self) -> Mapping[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in self.out.glob("maps/*/landcover.tif")}


@pytest.mark.timeout(1800)
def test_twelve_scenes_through_all_that_comes_between(place: Path) -> None:
    straight = Runs.into(place, "straight")
    begin = time.monotonic()
    assert straight.run() == dict.fromkeys(GOOD, "mapped") | FAILED
    lasted = time.monotonic() - begin
    wanted = straight.products()
    assert set(wanted) == GOOD and len(set(wanted.values())) == len(GOOD)

    killed = Runs.into(place, "killed")
    seed = random.SystemRandom().randrange(2**32)
    print(f"moments of seed {seed}")
    moments = random.Random(seed)
    for _ in range(3):
        process = killed.start()
        time.sleep(moments.uniform(0.1, 0.6) * lasted)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    killed.run()
    assert killed.products() == wanted
    assert not list((killed.out / ".region/next").iterdir())

    times = killed.times()
    assert killed.run() == FAILED
    assert killed.times() == times and killed.history[-1]["pixels"] == 0

    image(place / "im/g.tif", 50, SIZES["g"])
    (place / "im/h.tif").rename(place / "im/i.tif")
    assert killed.run() == {"g": "mapped", "i": "renamed"} | FAILED
    assert {name for name, at in killed.times().items() if times.get(name) != at} == {"g", "i"}
    assert killed.times()["i"] == times["h"] and killed.products()["i"] == wanted["h"]
    assert killed.products()["g"] != wanted["g"]

    now = {*GOOD, "i"} - {"h"}
    other = Runs.into(place, "killed", "spectral-rgb")
    assert other.run() == dict.fromkeys(now, "mapped") | FAILED


@pytest.mark.timeout(1800)
def test_three_parts_at_once_make_what_one_run_makes(place: Path) -> None:
    straight, parts = Runs.into(place, "straight"), Runs.into(place, "parts")
    straight.run()
    running = [parts.start("--shard", f"{index}/3") for index in (1, 2, 3)]
    codes = [process.wait(600) for process in running]
    assert set(codes) <= {0, 3} and 3 in codes
    assert parts.products() == straight.products()
    collection = json.loads((parts.out / "maps/collection.json").read_text())
    assert sum(link["rel"] == "item" for link in collection["links"]) == len(GOOD)
    found = {scene["scene"]: scene["what"] for run in parts.history for scene in run["scenes"]}
    assert found == dict.fromkeys(GOOD, "mapped") | FAILED
