"""The figure of docs/accuracy.md: image, labels, network alone, network + labels and truth of three places.

    python tests/benchmarks/accuracy_figure.py docs/accuracy.png

A practice city, Landsat over Zion (USGS; NLCD 2011) and Sentinel-2 over a flood in Spain (Copernicus; labels
of Sen1Floods11, CC BY 4.0): imagery that may be shown. Crops are chosen for what they show; the numbers above
the panels are of the whole place.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from accuracy import Cell, Ground, case_of, ground_of, map_case, read_product, train, warped
from numpy.typing import NDArray
from PIL import Image
from rasterio.warp import Resampling
from scores import score

from citycover.draw.colours import colorize, stretch
from citycover.draw.panels import write_panels

SIDE = 340
"""Pixels of a panel."""
PLACES = {
    "city": ("a practice city, 1 m, with noisy labels of 10 m", (700, 900, 340)),
    "zion": ("Zion, Landsat 8 at 30 m, with NLCD made coarse to 240 m", (150, 250, 340)),
    "floods": ("a flood in Spain, Sentinel-2 at 10 m, with drawn water made coarse to 80 m", (0, 172, 340)),
}
"""Case -> words, and the crop (row, column, side) on the grid of the truth."""


def draw_place(name: str, words: str, crop: tuple[int, int, int], work: Path, out: Path) -> None:
    """Train, map both ways, and draw a crop of everything."""
    cell = Cell(name, "clean", "l2hnet-light", "ce", 100)
    case = case_of(cell, work, os.environ.get("CITYCOVER_DATA"))
    ground = ground_of(case)
    train(cell, case, work / name / "run")
    model = work / name / "run" / "model.pt"
    maps: dict[str, NDArray[np.int16]] = {"labels": ground.nearest}
    for output, labels in (("network alone", False), ("network + labels", True)):
        folder = map_case(case, model, work / name / output.replace(" ", "-"), labels=labels)
        maps[output] = read_product(folder, ground)[0]
    maps["truth"] = ground.truth
    part = (slice(crop[0], crop[0] + crop[2]), slice(crop[1], crop[1] + crop[2]))
    panels = [("image", sized(picture_of(case.image, ground)[part]))]
    for title, ranks in maps.items():
        found = score(ranks, ground.truth, len(ground.legend.classes))
        said = title if title == "truth" else f"{title}, mean IoU {100 * found.miou:.1f} %"
        panels.append((said, sized(coloured(ranks, ground)[part])))
    write_panels(out, panels, ground.legend, words)


def picture_of(image: str, ground: Ground) -> NDArray[np.uint8]:
    """Red, green and blue (y, x, 3) on the grid of the truth."""
    with rasterio.open(image) as source:
        bands = [warped(b.astype(np.float32), dict(source.profile), ground.profile, Resampling.bilinear)
                 for b in source.read([1, 2, 3])]  # fmt: skip
    values = np.stack(bands, -1)
    return stretch(values, values.min(-1) > 0)


def coloured(ranks: NDArray[np.int16], ground: Ground) -> NDArray[np.uint8]:
    """Ranks (y, x) in the colours of the legend."""
    ids = np.array([*ground.legend.ids, ground.legend.product_nodata], np.uint8)
    return colorize(ids[np.where(ranks < 0, len(ground.legend.ids), ranks)], ground.legend)


def sized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A crop as large as a panel, pixel by pixel."""
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST))


def main() -> None:
    """Draw all places below each other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name, (words, crop) in PLACES.items():
            path = Path(folder) / f"{name}.png"
            draw_place(name, words, crop, Path(folder), path)
            rows.append(Image.open(path).convert("RGB"))
        page = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
        top = 0
        for row in rows:
            page.paste(row, (0, top))
            top += row.height
        page.save(given.out, optimize=True)


if __name__ == "__main__":
    main()
