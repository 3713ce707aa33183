"""How long commands take that do nothing but answer: `make bench-start`.

Help of every verb, a mistake, plans of a small and of a very large scene, and what a run of a region of a
thousand scenes would do. Writes wall and processor time, each the best of several runs,
and what the imports of help take, into docs/benchmarks.json and its page.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from page import DOCS, keep

from citycover_cli.app import verbs

SCENES = 1000

HUGE = 200_000

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")

Command = tuple[str, list[str]]
"""What it is called, and its words."""


@dataclass(frozen=True)
class Cost:
    """What a command takes."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds."""


def measure(words: Sequence[str]) -> Cost:
    """One run of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "citycover_cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = 0  # it was waited for
    return Cost(wall, used.ru_utime + used.ru_stime)


def best(words: Sequence[str], runs: int) -> Cost:
    """The least of each figure over several runs."""
    found = [measure(words) for _ in range(runs)]
    return Cost(min(c.wall for c in found), min(c.cpu for c in found))


def write_scene(path: Path, side: int) -> None:
    """An image that the built-in model takes; of a very large one only what is not empty takes space."""
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs="EPSG:32633",
        transform=Affine(1, 0, 500_000, 0, -1, 5_800_000), photometric="rgb", tiled=True,
        sparse_ok=True, bigtiff="IF_SAFER",
    ) as dataset:  # fmt: skip
        dataset.write(np.full((3, 512, 512), 90, np.uint8), window=rasterio.windows.Window(0, 0, 512, 512))


def write_region(folder: Path) -> Path:
    """A region of a thousand scenes."""
    first = folder / "im/scene-0000.tif"
    first.parent.mkdir()
    write_scene(first, 512)
    for number in range(1, SCENES):
        (folder / f"im/scene-{number:04d}.tif").write_bytes(first.read_bytes())
    region = folder / "region.toml"
    lines = ('name = "region"', 'out = "out"', 'model = "spectral-rgb"', "[[scenes]]", 'files = ["im/*.tif"]')
    region.write_text("\n".join(lines))
    return region


def commands(folder: Path) -> list[Command]:
    """All that is measured, and the files for it."""
    scene, huge = folder / "scene.tif", folder / "huge.tif"
    write_scene(scene, 2048)
    write_scene(huge, HUGE)
    region = write_region(folder)
    helps = [(" ".join((*verb, "--help")), [*verb, "--help"]) for verb in ((), *verbs())]
    return [
        *helps,
        ("map of a file that is not there", ["map", "nothing.tif", "--out", str(folder / "out")]),
        ("plan --no-probe, 2048 x 2048", ["plan", str(scene), "--no-probe"]),
        (f"plan --no-probe, {HUGE:,} x {HUGE:,}", ["plan", str(huge), "--no-probe"]),
        (f"run --dry-run, {SCENES:,} scenes", ["run", str(region), "--dry-run"]),
    ]


def imports(words: Sequence[str]) -> list[tuple[str, int]]:
    """Packages that a command imports, and the microseconds that each takes by itself, the longest first."""
    command = [sys.executable, "-X", "importtime", "-m", "citycover_cli", *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found: dict[str, int] = {}
    for line in said.splitlines():
        if match := _IMPORT.match(line):
            package = match[4].partition(".")[0]
            found[package] = found.get(package, 0) + int(match[1])
    return sorted(found.items(), key=lambda item: -item[1])


def text_of(costs: Sequence[tuple[str, Cost]], taken: Sequence[tuple[str, int]], runs: int) -> str:
    """Both tables."""
    lines = [
        f"Best of {runs} runs (one of the last):",
        "",
        "| `citycover ...` | wall, s | processor, s |",
        "|---|--:|--:|",
    ]
    lines += [f"| {name} | {cost.wall:.2f} | {cost.cpu:.2f} |" for name, cost in costs]
    lines += ["", "What the imports of `citycover --help` take (`-X importtime`), by package:", ""]
    lines += ["| package | ms |", "|---|--:|"]
    lines += [f"| {name} | {micro / 1000:.0f} |" for name, micro in taken[:12]]
    rest = sum(micro for _, micro in taken[12:]) / 1000
    return "\n".join([*lines, f"| {max(0, len(taken) - 12)} others | {rest:.0f} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-doc", action="store_true", help="print, and leave docs/benchmarks.md alone")
    options = parser.parse_args()
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for name, words in commands(Path(folder)):
            costs.append((name, best(words, 1 if name.startswith("run") else options.runs)))
            print(f"{name:<40} {costs[-1][1]}", flush=True)
    text = text_of(costs, imports(["--help"]), options.runs)
    print(text)
    if not options.no_doc:
        keep(DOCS, start=text.splitlines())


if __name__ == "__main__":
    main()
