"""Files that were planned by what a STAC item says of them, once they are open: are they that?

An item tells grid, pixel type and what numbers mean (`scene/said.py`). What it does not tell is taken from
the file: masks, alpha, nodata. A file that is another than was said is no sheet of this map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from citycover.errors import SceneError
from citycover.files.gdal import brief_reason, open_unseen, scene_options
from citycover.geometry.grid import grid_of, grid_text, same_grid
from citycover.read.small import some_sheets
from citycover.scene.scene import BandSource, Promise, Scene
from citycover.scene.validity import can_occur, validities


def kept(dataset: Any, bands: Sequence[BandSource]) -> list[BandSource]:
    """Bands of an open file as they are, where an item has said what they are; others as they were described.

    Raises:
        SceneError: the file is not what the item says.
    """
    return [band if band.promise is None else _kept(dataset, band, band.promise, bands) for band in bands]


def _kept(dataset: Any, band: BandSource, promise: Promise, bands: Sequence[BandSource]) -> BandSource:
    _check(dataset, band, promise)
    colours = tuple(colour.name for colour in dataset.colorinterp)
    place = band.index - 1
    validity = validities(dataset.mask_flag_enums, colours)[place]
    picked = {other.index for other in bands}
    if validity == "alpha" and any(colours[index - 1] == "alpha" for index in picked):
        validity = "none"  # what is read as numbers is no opacity
    tag = dataset.nodatavals[place] if validity in {"nodata", "alpha"} else None
    nodata = band.nodata
    if not promise.settled and tag is not None and can_occur(tag, band.dtype):
        nodata = tag
    if validity == "none" and nodata is not None:
        validity = "nodata"
    return replace(band, validity=validity, nodata=nodata)


def _check(dataset: Any, band: BandSource, promise: Promise) -> None:
    """Raise SceneError where a file is not what an item says."""
    if dataset.count < len(promise.scaled):  # more than is said may be alpha
        raise _lie(band, promise, f"has {dataset.count} bands", f"{len(promise.scaled)}")
    grid = grid_of(dataset)
    if grid.crs is None or not same_grid(grid, promise.grid):
        raise _lie(band, promise, f"lies on {_words(grid)}", _words(promise.grid))
    if (got := dataset.dtypes[band.index - 1]) != band.dtype:
        raise _lie(band, promise, f"has pixels of {got}", band.dtype)
    if not promise.scaled[band.index - 1]:
        scale, offset = dataset.scales[band.index - 1], dataset.offsets[band.index - 1]
        if (scale, offset) != (1.0, 0.0):
            raise _lie(band, promise, f"has numbers that mean {scale:g} x {offset:+g}", "nothing of it")


def _words(grid: GeoBox) -> str:
    return grid_text(grid) if grid.crs is not None else "a grid without CRS"


def _lie(band: BandSource, promise: Promise, got: str, said: str) -> SceneError:
    return SceneError(
        f"{band.path} {got}, and {promise.by} says {said}; a map by what it says would be wrong; "
        f"mend the item, leave it out, or name the files themselves"
    )


def check_promises(scene: Scene, within: GeoBox | None) -> None:
    """Look at a few of the files that only items tell of, before a run begins.

    Args:
        scene: whose files.
        within: what is to be mapped of it; None: all.

    Raises:
        SceneError: none can be opened, or one is not what its item says.
    """
    for group in scene.groups:
        failed: list[tuple[str, str]] = []
        opened = 0
        for sheet in some_sheets(group, within):
            files: dict[str, list[BandSource]] = {}
            for band in sheet.bands:
                if band.promise is not None:
                    files.setdefault(band.path, []).append(band)
            for path, bands in files.items():
                try:
                    with rasterio.Env(**scene_options([path])), open_unseen(path) as dataset:
                        kept(dataset, bands)
                    opened += 1
                except RasterioError as error:
                    failed.append((path, brief_reason(error)))
        if failed and not opened:
            path, reason = failed[0]
            raise SceneError(
                f"{path} and {len(failed) - 1} more files that STAC items name cannot be opened ({reason}); "
                f"check addresses and credentials"
            )
