"""Merging classes before or after the decision.

A map in many classes can be judged in fewer by merging the classes of its pixels. With probabilities there is
a second way: add those of the classes that merge, and decide then. The two differ where parts of a merged
class win together and none of them wins alone: of 0.4 water, 0.3 deciduous and 0.3 coniferous forest, the
first way makes water and the second forest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from citycover.classes.table import NO_CLASS
from citycover.errors import ConfigError
from citycover.files.gdal import brief_reason, open_raster, options_for
from citycover.files.heed import heed, listen
from citycover.files.remote import Place
from citycover.geometry.grid import grid_of

Merge = Literal["first", "last"]

_STRIP_VALUES = 2**24


def merge_probabilities(
    probabilities: NDArray[Any], ranks: NDArray[np.int16], classes: int
) -> NDArray[np.float32]:
    """Add the probabilities of the channels that become one class.

    Args:
        probabilities: (channel, y, x), of any scale.
        ranks: (channel,) class that each channel becomes; negative: it is dropped.
        classes: how many there are.

    Returns:
        (class, y, x)
    """
    merged = np.zeros((classes, *probabilities.shape[1:]), np.float32)
    for channel, rank in zip(probabilities, ranks, strict=True):
        if rank >= 0:
            merged[rank] += channel
    return merged


def decide(
    probabilities: NDArray[Any], ranks: NDArray[np.int16], classes: int, merge: Merge
) -> NDArray[np.int16]:
    """(y, x) rank of each pixel's class, merged before (`first`) or after (`last`) the largest is taken.

    A pixel without any probability (all zero, or not finite) has no class. Arguments as for
    `merge_probabilities`.
    """
    scores: NDArray[Any] = np.where(np.isfinite(probabilities), probabilities, 0)
    become = ranks
    if merge == "first":
        scores, become = merge_probabilities(scores, ranks, classes), np.arange(classes, dtype=np.int16)
    decided: NDArray[np.int16] = become[scores.argmax(0)]
    decided[scores.max(0) <= 0] = NO_CLASS
    return decided


@dataclass(frozen=True)
class _Source:
    """Probabilities on disk, read by rows."""

    grid: GeoBox
    channels: int
    read: Callable[[int, int], NDArray[Any]]
    """(first row, end) -> (channel, y, x)."""


def write_decided(path: Place, out: Path, ranks: NDArray[np.int16], classes: int, merge: Merge) -> None:
    """Decide on the classes of a file of probabilities, strip by strip.

    Args:
        path: multi-band raster, or Zarr with an array `probabilities` (class, y, x), channels in the order of
            the map's legend.
        out: GeoTIFF of ranks to write; its nodata is NO_CLASS.
        ranks: (channel,) class that each channel becomes; negative: it is dropped.
        classes: how many there are.
        merge: see `decide`.

    Raises:
        ConfigError: not readable, or another number of channels.
    """
    with ExitStack() as stack:
        try:
            source = (
                _open_zarr(path) if isinstance(path, Path) and path.is_dir() else _open_raster(path, stack)
            )
            if source.channels != len(ranks):
                raise ConfigError(
                    f"--probabilities {path} has {source.channels} bands and the map's legend {len(ranks)} "
                    "classes; give one band for each class, in the order of the legend"
                )
            height, width = source.grid.shape
            crs = source.grid.crs.to_wkt() if source.grid.crs else None
            target = stack.enter_context(
                rasterio.open(
                    out, "w", driver="GTiff", height=height, width=width, count=1, dtype="int16", crs=crs,
                    transform=source.grid.transform, nodata=NO_CLASS, compress="deflate", bigtiff="if_safer",
                )
            )  # fmt: skip
            rows = max(1, _STRIP_VALUES // (width * source.channels))
            for row in range(0, height, rows):
                decided = decide(source.read(row, min(row + rows, height)), ranks, classes, merge)
                target.write(decided, 1, window=RasterioWindow(0, row, width, len(decided)))
        except RasterioError as error:
            raise ConfigError(
                f"--probabilities {path} cannot be read: {brief_reason(error)}; fetch or copy the file again"
            ) from None


def _open_raster(path: Place, stack: ExitStack) -> _Source:
    stack.enter_context(rasterio.Env(**options_for(path)))
    dataset = stack.enter_context(open_raster(path))

    def read(row: int, end: int) -> NDArray[Any]:
        window = RasterioWindow(0, row, dataset.width, end - row)
        listen()
        values: NDArray[Any] = dataset.read(window=window)
        for band, flags in enumerate(dataset.mask_flag_enums, start=1):
            if MaskFlags.alpha not in flags:  # the fourth of four bands: GDAL takes it for opacity
                values[band - 1, dataset.read_masks(band, window=window) == 0] = 0
        heed()
        return values

    return _Source(grid_of(dataset), dataset.count, read)


def _open_zarr(path: Path) -> _Source:
    import rioxarray  # noqa: F401  (gives arrays the accessor `rio`)
    import xarray as xr

    try:
        dataset = xr.open_zarr(
            path, decode_coords="all", mask_and_scale=False, chunks=None, consolidated=False
        )
        array = dataset["probabilities"]
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"--probabilities {path} is no Zarr with an array `probabilities` (class, y, x): {error}"
        ) from None
    crs = array.rio.crs.to_wkt() if array.rio.crs else None
    grid = GeoBox(array.shape[1:], array.rio.transform(), crs)
    fill = array.rio.nodata

    def read(row: int, end: int) -> NDArray[Any]:
        values = np.asarray(array[:, row:end])
        return values if fill is None else np.where(values == fill, values.dtype.type(0), values)

    return _Source(grid, len(array), read)
