"""Class rasters: which pixels have a class, on their own grid and on others."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp

from citycover.classes.raster import ClassRaster, count_ids, refuse_apart
from citycover.classes.table import NO_CLASS, ClassTable
from citycover.errors import ConfigError
from citycover.geometry.window import Window

PLACE = Affine(2, 0, 500_000, 0, -2, 5_800_000)
IDS = np.random.default_rng(0).integers(0, 5, (20, 30))
SEEN = np.random.default_rng(1).random((20, 30)) > 0.3
TYPES = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]


def write_classes(path: Path, dtype: str, validity: str) -> Path:
    """Ids 0..4 with 9 where nothing is seen, and what says so."""
    count = 2 if validity == "alpha" else 1
    ids = IDS.copy() if validity == "none" else np.where(SEEN, IDS, 9)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=20, width=30, count=count, dtype=dtype,
            crs="EPSG:32633", transform=PLACE, nodata=9 if validity == "nodata" else None,
        ) as dataset,
    ):  # fmt: skip
        dataset.write(ids.astype(dtype), 1)
        if validity == "alpha":
            dataset.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
            dataset.write((SEEN * 100).astype(dtype), 2)
        if validity == "mask":
            dataset.write_mask(SEEN)
    return path


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("validity", ["none", "nodata", "alpha", "mask"])
def test_only_what_is_seen_has_a_class_on_any_grid(tmp_path: Path, dtype: str, validity: str) -> None:
    path = write_classes(tmp_path / "a.tif", dtype, validity)
    seen = np.ones_like(SEEN) if validity == "none" else SEEN
    with ClassRaster(path, "labels") as raster:
        ids, valid = raster.read(raster.whole)
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_array_equal(ids[valid], IDS[seen])
    larger = GeoBox((80, 100), PLACE * Affine.translation(-5, -5) * Affine.scale(0.5), "EPSG:32633")
    expected = np.zeros((80, 100), np.bool_)
    expected[10:50, 10:70] = seen.repeat(2, 0).repeat(2, 1)
    with ClassRaster(path, "labels", onto=larger) as raster:
        ids, valid = raster.read(raster.whole)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(
        ids[10:50, 10:70][valid[10:50, 10:70]], IDS.repeat(2, 0).repeat(2, 1)[valid[10:50, 10:70]]
    )


@pytest.mark.parametrize("validity", ["none", "nodata", "alpha", "mask"])
def test_ids_that_a_table_lacks_have_no_class_and_are_told_where_they_are_seen(
    tmp_path: Path, validity: str
) -> None:
    path = write_classes(tmp_path / "a.tif", "int16", validity)
    seen = np.ones_like(SEEN) if validity == "none" else SEEN
    table = ClassTable(np.array([0, 2, 3]), np.array([1, NO_CLASS, 0], np.int16), "a table")
    with ClassRaster(path) as raster:
        ranks, stray = raster.read_known(raster.whole, table)
        np.testing.assert_array_equal(ranks, np.where(seen, np.array([1, -1, -1, 0, -1])[IDS], NO_CLASS))
        np.testing.assert_array_equal(stray, IDS[seen & np.isin(IDS, [1, 4])])
        whole = ClassTable(np.arange(5), np.arange(5, dtype=np.int16), "a table of all")
        ranks, stray = raster.read_known(raster.whole, whole)
        np.testing.assert_array_equal(ranks, np.where(seen, IDS, NO_CLASS))
        assert not stray.size


def test_ids_are_counted_under_an_image(tmp_path: Path) -> None:
    path = write_classes(tmp_path / "a.tif", "int16", "alpha")
    corner = GeoBox((10, 10), PLACE * Affine.translation(4, 6), "EPSG:32633")
    part = np.s_[6:16, 4:14]
    with ClassRaster(path) as raster:
        assert raster.part_under(corner) == Window(6, 4, 10, 10)
        assert raster.part_under(GeoBox((9, 9), PLACE * Affine.translation(90, 0), "EPSG:32633")) is None
    expected = {i: int(n) for i, n in enumerate(np.bincount(IDS[part][SEEN[part]])) if n}
    assert count_ids(path, under=corner) == expected


@pytest.mark.parametrize("count", [2, 3, 4])
def test_colours_and_several_bands_are_no_class_numbers(tmp_path: Path, count: int) -> None:
    path = tmp_path / "rgb.tif"
    photometric = "RGB" if count > 2 else "MINISBLACK"
    with rasterio.open(
        path, "w", driver="GTiff", height=4, width=4, count=count, dtype="uint8", crs="EPSG:32633",
        transform=PLACE, photometric=photometric,
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((count, 4, 4), np.uint8))
        if count == 2:
            dataset.colorinterp = (ColorInterp.gray, ColorInterp.undefined)
    with pytest.raises(ConfigError, match=f"has {count} bands; needed is one band of class numbers; take"):
        ClassRaster(path, "truth")


def test_fractions_are_no_class_numbers(tmp_path: Path) -> None:
    path = write_classes(tmp_path / "a.tif", "float32", "none")
    with rasterio.open(path, "r+") as dataset:
        dataset.write(IDS + 0.5, 1)
    with pytest.raises(ConfigError, match="are not whole"):
        count_ids(path)


def test_rasters_that_cross_180_degrees_are_apart_by_latitude_alone(tmp_path: Path) -> None:
    def raster(name: str, zone: int, east: float, north: float) -> ClassRaster:
        path, place = tmp_path / name, Affine(100, 0, east, 0, -100, north)
        with rasterio.open(
            path, "w", driver="GTiff", height=20, width=30, count=1, dtype="uint8", crs=f"EPSG:{zone}",
            transform=place,
        ) as dataset:  # fmt: skip
            dataset.write(IDS.astype(np.uint8), 1)
        return ClassRaster(path)

    across = raster("across.tif", 32660, 832_500, 100_000)  # 180 degrees lie at 834 km
    beside = raster("beside.tif", 32601, 166_500, 100_000)
    north = raster("north.tif", 32660, 832_500, 900_000)
    with across, beside, north:
        refuse_apart(across, beside)
        with pytest.raises(ConfigError, match="do not overlap; check their CRS"):
            refuse_apart(across, north)


@pytest.mark.parametrize("warped", [False, True])
@pytest.mark.parametrize("codec", ["packbits", "deflate", "lzw"])
def test_classes_that_cannot_be_read_are_no_classes(tmp_path: Path, codec: str, warped: bool) -> None:
    """PackBits of a run that is too long only makes GDAL warn, and zeros come."""
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=60, width=90, count=1, dtype="uint8", crs="EPSG:32633",
        transform=PLACE, compress=codec, blockysize=20,
    ) as dataset:  # fmt: skip
        dataset.write(IDS.astype(np.uint8).repeat(3, 0).repeat(3, 1), 1)
    with rasterio.open(path) as dataset:
        at = int(dataset.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[at] = 0x81
    path.write_bytes(data)
    onto = GeoBox((50, 70), PLACE * Affine.translation(3, 3), "EPSG:32633") if warped else None
    with ClassRaster(path, "truth", onto=onto) as raster, pytest.raises(ConfigError, match="cannot be read"):
        raster.read(raster.whole)


def test_a_picture_without_a_place_is_refused_in_our_words_alone(tmp_path: Path) -> None:
    """A warning of the library would be an error here, and lines of code on a terminal."""
    path = tmp_path / "a.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="PNG", height=4, width=4, count=3, dtype="uint8") as dataset:
            dataset.write(np.ones((3, 4, 4), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError, match="has 3 bands"):
            ClassRaster(path, "truth")
