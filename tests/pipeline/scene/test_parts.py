"""Variables of Zarr, NetCDF and HDF5 as bands of a scene."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
import zarr
from rasterio.crs import CRS
from rasters import read_scene, write

from citycover.errors import SceneError
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files

IMAGE = np.random.default_rng(2).integers(1, 250, (2, 40, 60), np.uint8)


def write_zarr(path: Path, *, located: bool = True) -> Path:
    """Red and near infrared by the CF conventions: axes, a grid mapping, and a scalar beside them."""
    root = zarr.open_group(path, mode="w", zarr_format=2)

    def put(name: str, values: np.ndarray, dimensions: list[str], **attributes: object) -> None:
        array = root.create_array(name, shape=values.shape, dtype=values.dtype, compressors=None)
        array[...] = values
        array.attrs.update({"_ARRAY_DIMENSIONS": dimensions} | attributes)

    put("x", 5e5 + np.arange(60) + 0.5, ["x"], standard_name="projection_x_coordinate")
    put("y", 5.8e6 - np.arange(40) - 0.5, ["y"], standard_name="projection_y_coordinate")
    put("spatial_ref", np.zeros((), np.int32), [], crs_wkt=CRS.from_epsg(32633).to_wkt())
    mapping = {"grid_mapping": "spatial_ref"} if located else {}
    for name, values in zip(("red", "nir"), IMAGE, strict=True):
        put(name, values, ["y", "x"], **mapping)
    return path


def write_netcdf(path: Path) -> Path:
    """Variables Band1 and Band2, in HDF5 as NetCDF 4 is."""
    rasterio.shutil.copy(write(path.with_suffix(".tif"), IMAGE), path, driver="netCDF", FORMAT="NC4")
    return path


def test_variables_of_a_zarr_store_are_bands_by_name(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "a.zarr")
    assert sorted(info.bands[0].title for info in describe_files([store])) == ["nir", "red"]
    values, valid, holes = read_scene(describe_scene([store], None, bands=("red", "nir")))
    assert valid.all() and not holes
    np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)
    one = describe_scene([f'ZARR:"{store}":/red'], None)
    np.testing.assert_array_equal(read_scene(one)[0][:, :, 0], IMAGE[0])


@pytest.mark.parametrize("suffix", [".nc", ".h5"])
def test_variables_of_netcdf_and_hdf5_are_bands_in_order(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    shutil.move(write_netcdf(tmp_path / "b.nc"), path)
    files = describe_files([path])
    assert [info.bands[0].title for info in files] == ["Band1", "Band2"]
    assert {stamp[0] for info in files for stamp in info.beside} == {str(path)}
    values, valid, _ = read_scene(describe_scene([path], None))
    assert valid.all()
    np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)


def test_variables_that_are_no_map_are_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"has \d variables, and none .* CF grid mapping, or as GeoTIFF"):
        describe_files([write_zarr(tmp_path / "a.zarr", located=False)])


def test_a_store_whose_variables_cannot_be_read_says_why(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "a.zarr")
    for name in ("red", "nir"):
        text = (store / name / ".zarray").read_text()
        (store / name / ".zarray").write_text(
            text.replace('"compressor": null', '"compressor": {"id": "new"}')
        )
    with pytest.raises(SceneError, match=r"a\.zarr has .*(red|nir): .*new.*; write it as Zarr 2"):
        describe_files([store])
