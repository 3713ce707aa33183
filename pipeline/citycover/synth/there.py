"""What of a city lies in a folder already: none needs to be drawn twice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import rasterio
from rasterio.errors import RasterioIOError

from citycover.synth.write import FILES, tags_of


def city_there(folder: Path, size: int, seed: int) -> Literal["whole", "part", "other"]:
    """How much a folder holds of the city of one size and seed as this version draws it.

    A file has its name only once all are complete, so each that is there counts. `other`: a file has such a
    name and is not of this city.
    """
    there = {name: gsd for name, gsd in FILES.items() if (folder / name).exists()}
    if not all(_is_of(folder / name, -(-size // gsd), seed) for name, gsd in there.items()):
        return "other"
    return "whole" if len(there) == len(FILES) else "part"


def _is_of(path: Path, side: int, seed: int) -> bool:
    try:
        with rasterio.open(path) as source:
            return bool(source.shape == (side, side) and tags_of(seed).items() <= source.tags().items())
    except RasterioIOError:
        return False
