"""Many small scenes in one process against a process for each: `map --each` and `map`, by turns.

    python tests/benchmarks/many_scenes.py --scenes 20 --size 1024

Prints wall and processor seconds of both ways, their ratios, and what a scene after the first costs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from citycover.synth.write import write_city


def cost(*words: object) -> tuple[float, float]:
    """(wall, processor) seconds of a command."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "citycover_cli", "map", *map(str, words), "--quiet"],
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"map ended with {process.returncode}")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_city(folder / "city", given.size)
        scenes = [folder / f"scene-{i}.tif" for i in range(given.scenes)]
        for scene in scenes:
            shutil.copy(folder / "city" / "image.tif", scene)
        ratios = []
        for turn in range(given.runs):
            one = cost(scenes[0], "--each", "-o", folder / f"one-{turn}")
            together = cost(*scenes, "--each", "-o", folder / f"together-{turn}")
            apart = [cost(scene, "-o", folder / f"apart-{turn}-{scene.stem}") for scene in scenes]
            walls, cpus = (sum(column) for column in zip(*apart, strict=True))
            ratios.append((walls / together[0], cpus / together[1]))
            further = [(b - a) / (given.scenes - 1) for a, b in zip(one, together, strict=True)]
            print(
                f"together {together[0]:.1f} s wall, {together[1]:.1f} s CPU; apart {walls:.1f}, {cpus:.1f}; "
                f"ratio {ratios[-1][0]:.1f} wall, {ratios[-1][1]:.1f} CPU; a further scene "
                f"{further[0]:.2f} s wall, {further[1]:.2f} s CPU",
                flush=True,
            )
            shutil.rmtree(folder / f"together-{turn}")
    wall, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"median of {given.runs}: {wall:.1f} x wall, {cpu:.1f} x CPU")


if __name__ == "__main__":
    main()
