"""What scenes cost that are no single raster: an area of interest, many sheets, several networks.

    python tests/benchmarks/scene_shapes.py --size 8192 --runs 3

The cheap network of the benchmark over the city repeated, in windows of 512, one thread; the ensemble is of
the U-Net at a quarter of the size. Every run is a process of its own; in each round each kind runs once, and
which one begins changes. Medians of the rounds' ratios are printed: `run` in seconds of the processor.

    python tests/benchmarks/scene_shapes.py --cases whole sheets --network unet --size 4096 --runs 4

does so with some kinds alone, and with the U-Net.

    python tests/benchmarks/scene_shapes.py --items 10000

plans as many STAC items, with `proj:` and without it: then each file is opened.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from affine import Affine
from rasterio.windows import Window

HERE = Path(__file__).resolve().parent

SIDES = 10
"""Sheets along each side."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one run."""

    cpu: float
    """Of the processor, start and publishing included."""
    wall: float
    sweep: float
    forward: float
    read: float


def cost_of(out: Path, words: Sequence[object]) -> Cost:
    """Map in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    usual = ("--window", 512, "--batch", 1, "--threads", 1, "--precision", "fp32", "--quiet")
    command = [sys.executable, "-m", "citycover_cli", "map", *words, "-o", out, *usual]
    begun = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command])
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    record = json.loads((out / "run.json").read_text())
    return Cost(
        usage.ru_utime + usage.ru_stime,
        wall,
        record["sweep_s"],
        record["stages"]["forward"],
        record["beside"]["read"],
    )


def cut(scene: Path, folder: Path) -> list[Path]:
    """The scene as sheets that touch, of the same blocks and compression."""
    folder.mkdir(parents=True, exist_ok=True)
    sheets = []
    with rasterio.open(scene) as whole:
        edges = [round(k * whole.width / SIDES) for k in range(SIDES + 1)]
        for row in range(SIDES):
            for col in range(SIDES):
                path = folder / f"{row}_{col}.tif"
                sheets.append(path)
                part = Window(
                    edges[col], edges[row], edges[col + 1] - edges[col], edges[row + 1] - edges[row]
                )
                shape = {"width": part.width, "height": part.height}
                profile = whole.profile | shape | {"transform": whole.window_transform(part)}
                with rasterio.open(path, "w", **profile) as sheet:
                    sheet.write(whole.read(window=part))
                    sheet.colorinterp = whole.colorinterp
                    sheet.descriptions = whole.descriptions
    return sheets


def tenth(scene: Path) -> str:
    """A square box in the middle that keeps a tenth."""
    with rasterio.open(scene) as file:
        west, south, east, north = file.bounds
    x, y, half = (west + east) / 2, (south + north) / 2, (east - west) * 0.1**0.5 / 2
    return f"{x - half},{y - half},{x + half},{y + half}"


def write_items(folder: Path, count: int) -> tuple[Path, Path]:
    """Collections of items of small files in rows of a hundred: one that says all, one without `proj:`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("red", "green", "blue", "nir")
    items: list[dict[str, Any]] = []
    profile = {
        "driver": "GTiff",
        "width": 64,
        "height": 64,
        "count": 4,
        "dtype": "uint8",
        "crs": "EPSG:32633",
    }
    for number in range(count):
        at = Affine(1, 0, 5e5 + number % 100 * 64, 0, -1, 5.8e6 - number // 100 * 64)
        with rasterio.open(folder / f"{number}.tif", "w", **profile, transform=at, sparse_ok=True):
            pass
        facts = {"proj:code": "EPSG:32633", "proj:shape": [64, 64], "proj:transform": list(at)[:6]}
        bands = [{"name": name, "data_type": "uint8"} for name in names]
        image = {"href": f"{number}.tif", "roles": ["data"], "bands": bands} | facts
        items.append({
            "type": "Feature", "stac_version": "1.1.0", "id": str(number), "geometry": None, "links": [],
            "properties": {"datetime": "2024-05-31T10:00:00Z"}, "assets": {"image": image},
        })  # fmt: skip
    told, opened = folder / "told.json", folder / "opened.json"
    told.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    for item in items:
        item["assets"]["image"] = {k: v for k, v in item["assets"]["image"].items() if "proj:" not in k}
    opened.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return told, opened


def plan_items(folder: Path, count: int, model: Path) -> None:
    """Seconds of the processor until windows, blocks and bytes are known; no network is asked."""
    from citycover.job.job import prepare
    from citycover.job.request import Imagery

    for path in write_items(folder, count):
        begun = time.process_time()
        job = prepare(Imagery((str(path),)), str(model))
        seconds = time.process_time() - begun
        print(f"{len(job.scene.groups[0].sheets)} items, {path.stem}: {seconds:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-shapes")
    parser.add_argument("--cases", nargs="+", default=["whole", "tenth", "sheets", "one", "three"])
    parser.add_argument(
        "--network", choices=("cheap", "unet"), default="cheap", help="of all but the last two"
    )
    parser.add_argument("--items", type=int, help="plan as many STAC items instead")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))
    from material import write_network, write_scene

    given.folder.mkdir(parents=True, exist_ok=True)
    cheap, unet = (write_network(kind, given.folder / f"{kind}.pt") for kind in ("cheap", "unet"))
    if given.items:
        plan_items(given.folder / "items", given.items, cheap)
        return
    large, small = (write_scene(given.folder, size) for size in (given.size, given.size // 4))
    network = {"cheap": cheap, "unet": unet}[given.network]
    cases: dict[str, tuple[object, ...]] = {
        "whole": (large, "--model", network),
        "tenth": (large, "--model", network, "--bbox", tenth(large)),
        "sheets": (*cut(large, given.folder / f"sheets-{given.size}"), "--model", network),
        "one": (small, "--model", unet),
        "three": (small, *("--model", unet) * 3),
    }
    rounds: list[dict[str, Cost]] = []
    for turn in range(given.runs):
        names = given.cases if turn % 2 == 0 else given.cases[::-1]
        rounds.append({name: cost_of(given.folder / "out", cases[name]) for name in names})
        print(rounds[-1], flush=True)
    print(f"{given.runs} rounds at {given.size} x {given.size}, {given.network}; {' '.join(given.cases)}")
    for title, one, other, *parts in (
        ("an area that keeps 10 %", "tenth", "whole", "cpu", "sweep"),
        ("100 sheets", "sheets", "whole", "cpu", "wall", "read"),
        ("3 networks", "three", "one", "forward", "read"),
    ):
        if {one, other} <= set(given.cases):
            print(title, *(f"{part} {ratio(rounds, part, one, other):.3f}" for part in parts))


def ratio(rounds: Sequence[dict[str, Cost]], part: str, one: str, other: str) -> float:
    """Median over the rounds."""
    return float(statistics.median(getattr(r[one], part) / getattr(r[other], part) for r in rounds))


if __name__ == "__main__":
    main()
