"""What it takes to make a million polygons of a map.

    python tests/benchmarks/polygons.py --side 9216

The map is squares of 8 x 8 pixels with specks: patches of some 75 pixels, as the map of a city has. Memory is
that of a process which does nothing but `vectorize`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

STRIP = 512


def write_map(path: Path, side: int) -> None:
    """Five classes in squares of 8 x 8 pixels, a tenth of whose pixels are of any class."""
    rng = np.random.default_rng(0)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", crs="EPSG:32633",
        transform=from_origin(4e5, 5.8e6, 1, 1), tiled=True, compress="zstd",
    ) as raster:  # fmt: skip
        for row in range(0, side, STRIP):
            height = min(STRIP, side - row)
            coarse = rng.integers(1, 6, (-(-height // 8), -(-side // 8)), np.uint8)
            ids = coarse.repeat(8, 0).repeat(8, 1)[:height, :side].copy()
            speckle = rng.random(ids.shape) < 0.005
            ids[speckle] = rng.integers(1, 6, int(speckle.sum()))
            raster.write(ids, 1, window=Window(0, row, side, height))


def measure(path: str, out: str) -> None:
    """Print figures of one vectorising."""
    from citycover.derive.vectorize import vectorize
    from citycover.machine.memory import peak_rss

    begin = time.perf_counter()
    found = vectorize(path, out, map_legend="landcover5")
    seconds = time.perf_counter() - begin
    facts = {"polygons": found.polygons, "seconds": round(seconds), "peak_GiB": round(peak_rss() / 2**30, 2)}
    print(json.dumps({**facts, "file_MiB": round(Path(out).stat().st_size / 2**20)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=9216)
    parser.add_argument("--inner", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inner:
        measure(*given.inner)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.tif"
        write_map(path, given.side)
        command = [sys.executable, __file__, "--inner", str(path), str(Path(folder) / "areas.parquet")]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
