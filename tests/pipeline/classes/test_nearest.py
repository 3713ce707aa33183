"""Rasters of Zarr stores on other grids: the numbers of GDAL's warped view of the same pixels in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from mapped import patchy, write_raster
from odc.geo.geobox import GeoBox
from stores import EPSG, NORTH, WEST, write_arrays

from citycover.classes import nearest
from citycover.classes.raster import ClassRaster
from citycover.errors import ConfigError
from citycover.geometry.crs import tie
from citycover.geometry.window import Window

CLASSES = patchy((70, 90))

PLACE = Affine(1, 0, WEST, 0, -1, NORTH)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file, and an array with the same numbers."""
    folder = tmp_path_factory.mktemp("both")
    store = write_arrays(folder / "a.zarr", {"cover": CLASSES}, chunks=(16, 32))
    zarr.open_array(store / "cover").attrs["_FillValue"] = 0
    return write_raster(folder / "a.tif", CLASSES, f"EPSG:{EPSG}", PLACE), store / "cover"


def seen(path: Path, onto: GeoBox | None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers where there are any, else 0, and where."""
    with ClassRaster(path, onto=onto) as raster:
        parts = [raster.read(window) for window in raster.strips()]
        ids, valid = (np.concatenate(one) for one in zip(*parts, strict=True))
    return np.where(valid, ids, 0), valid


@settings(max_examples=40)
@given(st.data())
def test_another_grid_shows_what_it_shows_of_the_file(both: tuple[Path, Path], data: st.DataObject) -> None:
    number = st.floats(-20, 60)
    side = data.draw(st.sampled_from([0.31, 0.77, 1.0, 2.13, 9.7]))
    at = Affine(side, 0, WEST + data.draw(number) + 0.123, 0, -side, NORTH - data.draw(number) - 0.123)
    crs, most = data.draw(st.sampled_from([(EPSG, 0), (32634, 0.002)]))
    x, y = tie(f"EPSG:{EPSG}", f"EPSG:{crs}", "a grid").transform(at.c, at.f)
    grid = GeoBox((40, 50), Affine(side, 0, x, 0, -side, y), f"EPSG:{crs}")
    most_read = nearest._MOST
    try:
        nearest._MOST = data.draw(st.sampled_from([most_read, 50]))
        (wanted, known), (got, valid) = (seen(path, grid) for path in both)
    finally:
        nearest._MOST = most_read
    # Between two CRS both draw straight lines, GDAL to a thousandth of a pixel.
    assert (got != wanted).mean() <= most + 1e-9 and (valid != known).mean() <= most + 1e-9


def test_its_own_grid_is_read_as_the_file_is(both: tuple[Path, Path]) -> None:
    for one, other in zip(*(seen(path, None) for path in both), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_chunk_that_is_lost_is_no_class(tmp_path: Path) -> None:
    store = write_arrays(tmp_path / "a.zarr", {"cover": CLASSES}, chunks=(16, 32))
    (store / "cover/c/1/1").unlink()
    with ClassRaster(store / "cover", "truth") as raster:
        assert raster.read(Window(0, 0, 16, 90))[1].all()
        with pytest.raises(ConfigError, match=r"c/1/1 is not in the store, and 0 would .* count as a class"):
            raster.read(raster.whole)
