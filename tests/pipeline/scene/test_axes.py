"""NetCDF is taken where its coordinates say that its pixels lie, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from pyproj import CRS
from rasters import read_scene
from stores import centres, write_arrays

from citycover.errors import SceneError
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files

IMAGE = np.random.default_rng(4).integers(1, 250, (2, 40, 60), np.int16)

UTM = CRS.from_epsg(32633).to_cf()


def write_cf(path: Path, along: dict[str, Any] | None = None, said: Any = None, **units: str) -> Path:
    """Red and near infrared with coordinates and a grid mapping of CF, as xarray writes them."""
    y, x = centres(40, 60)
    along = {"y": y, "x": x} | (along or {})
    bands = {n: (("y", "x"), v, {"grid_mapping": "crs"}) for n, v in zip(("red", "nir"), IMAGE, strict=True)}
    found = xr.Dataset(bands | {"crs": ((), np.int32(0), UTM if said is None else said)})
    for name, values in along.items():
        words = {"standard_name": f"projection_{name}_coordinate", "units": units.get(name, "m")}
        if "axis" not in units:
            words["axis"] = name.upper()
        found = found.assign_coords({name: (name, values, words)})
    found.to_netcdf(path, engine="scipy")
    return path


def pixels_of(path: Path) -> np.ndarray:
    values, valid, _ = read_scene(describe_scene([path], None, bands=("red", "nir")))
    assert valid.all()
    return values.transpose(2, 0, 1)


def test_axes_may_run_either_way_and_be_rounded(tmp_path: Path) -> None:
    y, x = centres(40, 60)
    up = write_cf(tmp_path / "up.nc", {"y": y[::-1]})
    np.testing.assert_array_equal(pixels_of(up), IMAGE[:, ::-1])
    rounded = write_cf(tmp_path / "rounded.nc", {"y": y.astype(np.float32), "x": x.astype(np.float32)})
    np.testing.assert_array_equal(pixels_of(rounded), IMAGE)


@pytest.mark.parametrize("units", ["days since 2024-05-01", "months since 2024-05-01", "1"])
def test_of_a_netcdf_over_time_one_date_is_read_and_known_where_it_is_one(tmp_path: Path, units: str) -> None:
    with xr.open_dataset(write_cf(tmp_path / "a.nc"), engine="scipy") as flat:
        cube = xr.concat([flat, flat], "time", data_vars=["red", "nir"])
    cube = cube.assign_coords(time=("time", [1.0, 2.0], {"units": units}))
    for name, part in (("all", cube), ("one", cube.isel(time=[1]))):
        part.to_netcdf(tmp_path / f"{name}.nc", engine="scipy")
    with pytest.raises(
        SceneError, match=r"lies along time, 2 long, .*isel\(time=\[0\]\).*to_zarr"
    ) as refused:
        describe_files([tmp_path / "all.nc"])
    assert "grid mapping" not in str(refused.value), "it has one"
    one = describe_scene([tmp_path / "one.nc"], None, bands=("red", "nir"))
    assert one.time == ("2024-05-03T00:00:00Z" if units.startswith("days") else None)


def test_bands_of_a_netcdf_of_one_date_are_no_dates(tmp_path: Path) -> None:
    with xr.open_dataset(write_cf(tmp_path / "a.nc"), engine="scipy") as flat:
        bands = flat[["red", "nir"]].to_array("band").assign_coords(band=[1, 2]).expand_dims("time")
        found = xr.Dataset({"both": bands.assign_attrs(grid_mapping="crs"), "crs": flat["crs"]})
        found = found.assign_coords(time=("time", [2.0], {"units": "days since 2024-05-01"}))
        found.transpose("time", "band", "y", "x").to_netcdf(tmp_path / "cube.nc", engine="scipy")
    info = describe_files([tmp_path / "cube.nc"])[0]
    assert len(info.bands) == 2 and info.time == "2024-05-03T00:00:00Z"


@pytest.mark.parametrize("west", [-0.003, 179.997, 359.997, 0.0])
def test_longitudes_may_pass_greenwich_and_180_degrees(tmp_path: Path, west: float) -> None:
    y, x = 52 - np.arange(40) / 1e4, west + np.arange(60) / 1e4
    geographic = CRS.from_epsg(4326).to_cf()
    path = write_cf(tmp_path / "a.nc", {"y": y, "x": x}, geographic, y="degrees_north", x="degrees_east")
    assert describe_files([path])[0].gsd == pytest.approx(8.7, rel=0.1)


def test_kilometres_of_which_metres_are_made_are_taken(tmp_path: Path) -> None:
    """GDAL does so where the CRS is given by its parameters."""
    y, x = centres(40, 60)
    said = {key: value for key, value in UTM.items() if key != "crs_wkt"}
    path = write_cf(tmp_path / "a.nc", {"y": y / 1000, "x": x / 1000}, said, y="km", x="km", axis="none")
    scene = describe_scene([path], None, bands=("red", "nir"))
    assert scene.grid.transform.almost_equals(
        describe_scene([write_cf(tmp_path / "b.nc")], None).grid.transform
    )
    np.testing.assert_array_equal(pixels_of(path), IMAGE)


def uneven(path: Path) -> Path:
    x = centres(40, 60)[1]
    x[20:] += 3
    return write_cf(path, {"x": x})


def in_kilometres(path: Path) -> Path:
    y, x = centres(40, 60)
    return write_cf(path, {"y": y / 1000, "x": x / 1000}, y="km", x="km", axis="none")


def in_kilometres_beyond_180(path: Path) -> Path:
    """GDAL takes 500 along an axis X for a longitude, whatever its unit: 360 km off."""
    y, x = centres(40, 60)
    said = {key: value for key, value in UTM.items() if key != "crs_wkt"}
    return write_cf(path, {"y": y / 1000, "x": x / 1000}, said, y="km", x="km")


def in_degrees(path: Path) -> Path:
    y, x = 52 - np.arange(40) / 1e5, 13 + np.arange(60) / 1e5
    return write_cf(path, {"y": y, "x": x}, y="degrees_north", x="degrees_east")


def turned(path: Path) -> Path:
    """Of a square of pixels, too: its shape tells nothing."""
    with xr.open_dataset(
        write_cf(path.with_suffix(".first.nc")), engine="scipy", decode_coords=False
    ) as found:
        found.isel(x=slice(0, 40)).transpose("x", "y").to_netcdf(path, engine="scipy")
    return path


def cut(path: Path) -> Path:
    """With xarray: coordinates, which need not say what they are, come along, and the transform stays."""
    wkt = CRS.from_epsg(32633).to_wkt("WKT1_GDAL")
    stale = UTM | {"spatial_ref": wkt, "GeoTransform": "500000 1 0 5800000 0 -1"}
    first = write_cf(path.with_suffix(".first.nc"), {"x": centres(40, 60)[1] + 100}, stale)
    with xr.open_dataset(first, engine="scipy", decode_coords=False) as found:
        found["x"].attrs, found["y"].attrs = {}, {}
        found.to_netcdf(path, engine="scipy")
    return path


WRONG = {
    cut: "it says another place than its coordinates do, 100 pixels off",
    uneven: "along x are not evenly spaced, up to",
    in_kilometres: "along y are in km, and its CRS (WGS 84 / UTM zone 33N) is in metre",
    in_kilometres_beyond_180: "GDAL does not read its coordinates along x, which are in kilometres",
    in_degrees: "along y are in degrees_north, and its CRS",
    turned: "its last dimension is not that of x; needed are dimensions (y, x)",
}


@pytest.mark.parametrize("write", WRONG)
def test_pixels_elsewhere_than_coordinates_say_are_refused(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / "a.nc")
    for given in (path, f'NETCDF:"{path}":red'):
        with pytest.raises(SceneError) as caught:
            describe_files([given])
        assert WRONG[write] in str(caught.value)


def test_a_variable_by_its_address_is_a_band_of_its_name(tmp_path: Path) -> None:
    path = write_cf(tmp_path / "a.nc")
    (info,) = describe_files([f'NETCDF:"{path}":nir'])
    assert info.bands[0].names == ("nir",)


def test_axes_of_zarr_are_in_the_unit_of_their_crs(tmp_path: Path) -> None:
    store = write_arrays(tmp_path / "a.zarr", {"red": IMAGE[0]}, attributes={"proj:code": "EPSG:32633"})
    group = zarr.open_group(store)
    for name, values in zip("yx", centres(40, 60), strict=True):
        group.create_array(name, data=values / 1000, dimension_names=(name,)).attrs["units"] = "km"
    with pytest.raises(SceneError, match=r"along [xy] are in km"):
        describe_files([store])
