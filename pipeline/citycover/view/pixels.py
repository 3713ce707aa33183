"""Pixels of a raster where the page shows them: on a grid of web maps, or at a point."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.windows import Window as RasterioWindow

from citycover.classes.nearest import Nearest
from citycover.files.folders import is_zarr
from citycover.files.gdal import open_raster, options_for, overview_for
from citycover.files.heed import heed, listen
from citycover.files.remote import Place
from citycover.files.zarr import ZarrRaster
from citycover.geometry.crs import DEGREES, tie
from citycover.geometry.grid import crs_of, grid_of, ground_sample_distance
from citycover.geometry.window import Window
from citycover.view.mercator import MERCATOR, TILE

_DECODED = 2**24
"""Most pixels that a tile may decode; beyond, people would wait for it."""

_ROUNDING = 1.01
"""Overviews of an odd raster are not quite a power of two, and metres on the ground are measured."""


def read_on(
    path: str | Place, grid: GeoBox, bands: Sequence[int], nodata: float | None = None
) -> np.ma.MaskedArray[Any, Any]:
    """Nearest pixels on a grid, of the overview that is fine enough for it.

    Only the pixels of the grid are computed: a view in the resolution of the raster, thinned out afterwards,
    has as many as the tile is large, for a file of a few pixels that is seen from far, too.

    Args:
        path: of a raster with a CRS.
        grid: in Mercator.
        bands: from 1.
        nodata: number of invalid pixels; None: as the file says.

    Returns:
        (band, y, x), masked outside of the raster and where it is invalid.

    Raises:
        RasterioError: it cannot be read.
    """
    from rio_tiler import reader

    height, width = (int(n) for n in grid.shape)
    if is_zarr(path):
        return _read_array(str(path), grid, bands, nodata)
    crs = CRS.from_user_input(MERCATOR)
    onto = {"transform": grid.transform, "height": height, "width": width}
    with rasterio.Env(**options_for(path)), ExitStack() as stack:
        dataset = stack.enter_context(open_raster(path))
        scale = ground_sample_distance(grid) / ground_sample_distance(grid_of(dataset))
        overview, _ = overview_for(dataset, scale * _ROUNDING)
        if overview is not None:
            dataset = stack.enter_context(open_raster(path, overview))
        listen()
        image = reader.read(dataset, crs, indexes=tuple(bands), nodata=nodata, vrt_options=onto)
        heed()
    return image.array


def _read_array(
    path: str, grid: GeoBox, bands: Sequence[int], nodata: float | None
) -> np.ma.MaskedArray[Any, Any]:
    with rasterio.Env(**options_for(path)), ZarrRaster(path) as raster:
        values, valid = Nearest(raster, grid).read(list(bands), Window(0, 0, *grid.shape))
    if nodata is not None:
        valid &= (values != nodata).all(0)
    return np.ma.MaskedArray(values, np.broadcast_to(~valid, values.shape))


def read_at(path: str | Place, longitude: float, latitude: float) -> tuple[int | float, ...] | None:
    """Numbers of all bands of the pixel at a place; None: outside, or invalid in every band.

    Raises:
        RasterioError: it cannot be read.
        ConfigError: its CRS is no place on the Earth.
    """
    with rasterio.Env(**options_for(path)), open_raster(path) as dataset:
        to = tie(DEGREES, crs_of(grid_of(dataset)), str(path))
        col, row = ~dataset.transform * to.transform(longitude, latitude)
        if not (0 <= row < dataset.height and 0 <= col < dataset.width):
            return None
        pixel = dataset.read(window=RasterioWindow(int(col), int(row), 1, 1), masked=True)[:, 0, 0]
    return None if np.ma.getmaskarray(pixel).all() else tuple(pixel.data.tolist())


def least_level(dataset: Any, native: int) -> int:
    """The first level at which a tile decodes few pixels: without overviews, a raster is shown from near.

    Args:
        dataset: an open rasterio dataset.
        native: level whose pixels are as large as its own.
    """
    block_width = max(width for _, width in dataset.block_shapes)
    for level in range(native, -1, -1):
        factor = 2 ** (native - level)
        rows, cols = min(TILE * factor, dataset.height), min(max(TILE * factor, block_width), dataset.width)
        _, useful = overview_for(dataset, factor)
        if rows * cols / useful**2 > _DECODED:
            return level + 1
    return 0
