"""What it takes to store a block, by the number of threads: where cores stop sharing the work.

    python tests/benchmarks/block_threads.py --width 32768 --threads 1 4 16

A block of classes and confidence, 2048 pixels tall, made of the synthetic city; what is compressed goes
nowhere. Threads of one interpreter share little where they make short calls: each waits for its lock.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from citycover.machine.cores import threads_here
from citycover.machine.memory import tune_allocator
from citycover.store.levels import block_statistics, halve_block
from citycover.store.shard import ArraySpec, Layout, write_shard
from citycover.synth.write import write_city

HEIGHT = 2048
ROUNDS = 3

Layers = list[tuple[NDArray[np.uint8], ArraySpec]]


class Nowhere(io.RawIOBase):
    """A file that forgets."""

    def write(self, data: object, /) -> int:
        """How much it was given."""
        return len(data)  # type: ignore[arg-type]


def layers_of(width: int) -> Layers:
    """Classes and a confidence as a network gives it: smooth, with noise in its last bits."""
    with tempfile.TemporaryDirectory() as name:
        write_city(Path(name), HEIGHT, 0)
        with rasterio.open(Path(name) / "truth.tif") as dataset:
            classes = dataset.read(1)
        with rasterio.open(Path(name) / "image.tif") as dataset:
            confidence = np.minimum(dataset.read(1), 254)
    repeats = (1, -(-width // HEIGHT))
    ids = tuple(int(k) for k in np.unique(classes) if k)
    return [
        (np.tile(classes, repeats)[:, :width].copy(), ArraySpec("classes", 0, 0, "mode", ids)),
        (np.tile(confidence, repeats)[:, :width].copy(), ArraySpec("confidence", 255, 0, "average")),
    ]


def stages(layers: Layers, layout: Layout) -> dict[str, Callable[[Executor], None]]:
    """What is done with a block."""

    def statistics(pool: Executor) -> None:
        for values, spec in layers:
            block_statistics(values, spec, pool)

    def compress(pool: Executor) -> None:
        for values, spec in layers:
            write_shard(Nowhere(), values, spec, layout, pool)  # type: ignore[arg-type]

    def halve(pool: Executor) -> None:
        for values, spec in layers:
            halve_block(values, spec, pool)

    return {"statistics": statistics, "compressing": compress, "first overview": halve}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=16_384)
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, 2, threads_here()}))
    given = parser.parse_args()
    tune_allocator()
    layers = layers_of(given.width)
    layout = Layout((2 * HEIGHT, given.width), (HEIGHT, given.width))
    names = " | ".join(stages(layers, layout))
    print(f"| {HEIGHT} x {given.width} px, ns a pixel: wall / processors | {names} |")
    print("|---|--:|--:|--:|")
    for threads in given.threads:
        with ThreadPoolExecutor(threads) as pool:
            row = [_measured(do, pool, HEIGHT * given.width) for do in stages(layers, layout).values()]
        print(f"| {threads} threads | " + " | ".join(row) + " |", flush=True)


def _measured(do: Callable[[Executor], None], pool: Executor, pixels: int) -> str:
    walls, used = [], []
    for _ in range(ROUNDS):
        wall, processor = time.perf_counter(), time.process_time()
        do(pool)
        walls.append(time.perf_counter() - wall)
        used.append(time.process_time() - processor)
    return f"{min(walls) / pixels * 1e9:.2f} / {min(used) / pixels * 1e9:.2f}"


if __name__ == "__main__":
    main()
