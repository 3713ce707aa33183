"""How long commands take that do nothing but answer: `make bench-start`.

Prints wall and processor time and the peak of memory of a process, each the best of several runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from citycover_cli.app import verbs


def measure(words: list[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MiB of one command."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "citycover_cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = 0  # it was waited for
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def write_scene(path: Path) -> None:
    """An image that the built-in model takes."""
    import numpy as np
    import rasterio
    from affine import Affine

    with rasterio.open(
        path, "w", driver="GTiff", width=2048, height=2048, count=3, dtype="uint8", crs="EPSG:32633",
        transform=Affine(1, 0, 500_000, 0, -1, 5_800_000), photometric="rgb",
    ) as dataset:  # fmt: skip
        dataset.write(np.full((3, 2048, 2048), 90, np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        scene, out = Path(folder) / "scene.tif", Path(folder) / "out"
        write_scene(scene)
        commands = [[*verb, "--help"] for verb in ((), *verbs())]
        commands += [["map", "nothing.tif", "--out", str(out)], ["plan", str(scene), "--no-probe"]]
        print(f"{'citycover':<32} {'wall s':>7} {'CPU s':>7} {'peak MiB':>9}   best of {runs}")
        for words in commands:
            wall, cpu, peak = (
                min(column) for column in zip(*(measure(words) for _ in range(runs)), strict=True)
            )
            shown = " ".join("FILE" if w == str(scene) else "DIR" if w == str(out) else w for w in words)
            print(f"{shown:<32} {wall:>7.2f} {cpu:>7.2f} {peak:>9.0f}")


if __name__ == "__main__":
    main()
