"""Arrays of Zarr stores as rasters: pixels against numpy and GDAL, places by what their makers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window
from rasters import write
from stores import EPSG, NORTH, WEST, centres, geozarr, write_arrays, write_xarray
from strategies import shapes, windows
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from citycover.files.chunks import _KEPT
from citycover.files.nodes import arrays_in
from citycover.files.zarr import ZarrRaster
from citycover.scene.file import describe_files

IMAGE = np.random.default_rng(3).integers(1, 250, (40, 60)).astype(np.uint8)

PLACE = Affine(1, 0, WEST, 0, -1, NORTH)

ORDERS = [("band", "y", "x"), ("y", "x", "band"), ("x", "time", "y", "band")]


@settings(max_examples=30)
@given(st.data())
def test_windows_of_any_layout_are_those_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape, bands = data.draw(shapes(50)), data.draw(st.integers(1, 5))
    order = data.draw(st.sampled_from(ORDERS))
    sides = {"band": bands, "time": 1, "y": shape[0], "x": shape[1]}
    chunks = tuple(data.draw(st.integers(1, sides[name])) for name in order)
    times = data.draw(st.none() | st.integers(1, 3))
    dtype = data.draw(st.sampled_from(["uint8", ">u2", "<i2", "float32"]))
    image = np.random.default_rng(0).integers(0, 250, (bands, *shape)).astype(dtype)  # (band, y, x)
    stored = np.moveaxis(
        image[None], range(4), [(*order, "time").index(n) for n in ("time", "band", "y", "x")]
    )
    path = write_arrays(
        tmp_path_factory.mktemp("z") / "a.zarr", {"image": stored.reshape([sides[n] for n in order])}, order,
        chunks=chunks, shards=times and tuple(times * side for side in chunks),
        compressors=data.draw(st.sampled_from([None, ZstdCodec(), GzipCodec(), BloscCodec()])),
    )  # fmt: skip
    cache = data.draw(st.sampled_from([0, 500, 2**20]))
    with rasterio.Env(GDAL_CACHEMAX=cache), ZarrRaster(f"{path}/image") as raster:
        assert (raster.count, *raster.shape) == image.shape and raster.transform == PLACE
        for _ in range(4):
            part = data.draw(windows(shape))
            indexes = data.draw(st.lists(st.integers(1, bands), min_size=1, max_size=6))
            where = Window(part.col, part.row, part.width, part.height)
            wanted = image[np.array(indexes) - 1][(slice(None), *part.slices)]
            np.testing.assert_array_equal(raster.read(indexes, window=where), wanted)
            out = np.empty((*wanted.shape[1:], len(wanted)), "float32").transpose(2, 0, 1)
            np.testing.assert_array_equal(raster.read(indexes, window=where, out=out), wanted)
    assert not _KEPT.chunks and _KEPT.size == 0


@settings(max_examples=30)
@given(st.data())
def test_smaller_versions_are_those_of_gdal(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = data.draw(shapes(60))
    image = np.random.default_rng(0).integers(0, 5, (2, *shape)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("z")
    store = write_arrays(folder / "a.zarr", {"image": image}, ("band", "y", "x"), chunks=(1, 7, 9))
    zarr.open_array(store / "image").attrs["_FillValue"] = 0
    part = data.draw(windows(shape))
    how = {
        "window": Window(part.col, part.row, part.width, part.height), "masked": True,
        "out_shape": (2, data.draw(st.integers(1, part.height)), data.draw(st.integers(1, part.width))),
    }  # fmt: skip
    with (
        ZarrRaster(f"{store}/image") as one,
        rasterio.open(write(folder / "a.tif", image, nodata=0)) as other,
    ):
        got, wanted = one.read(**how), other.read(**how)
        np.testing.assert_array_equal(got.data, wanted.data)
        np.testing.assert_array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(wanted))


def of_zarr_python(path: Path) -> str:
    return f"{write_arrays(path, {'red': IMAGE}, chunks=(16, 16))}/red"


def of_xarray(path: Path) -> str:
    return f"{write_xarray(path, {'red': IMAGE}, {})}/red"


def sliced(path: Path) -> str:
    """rioxarray wrote a transform before xarray cut the image out."""
    whole = np.pad(IMAGE, ((7, 9), (5, 3)))
    y, x = centres(*whole.shape)
    found = xr.Dataset({"red": (("y", "x"), whole)}, {"y": y + 7, "x": x - 5})
    found = found.rio.write_crs(EPSG).rio.write_transform(Affine(1, 0, WEST - 5, 0, -1, NORTH + 7))
    found.isel(y=slice(7, 47), x=slice(5, 65)).to_zarr(path, zarr_format=3, consolidated=False)
    return f"{path}/red"


def of_an_inner_group(path: Path) -> str:
    zarr.open_group(path, mode="w", zarr_format=3).attrs["proj:code"] = f"EPSG:{EPSG}"
    said = {"spatial:transform": [1, 0, WEST, 0, -1, NORTH], "spatial:shape": [40, 60]}
    return f"{write_arrays(path / 'r1m', {'red': IMAGE}, attributes=said)}/red"


def said_by_itself(path: Path) -> str:
    store = write_arrays(path, {"red": IMAGE}, attributes={"proj:transform": [9, 0, 9, 0, -9, 9]})
    said = {"proj:epsg": EPSG, "proj:transform": list(PLACE), "proj:shape": [40, 60]}
    zarr.open_array(store / "red").attrs.update(said)
    return f"{store}/red"


def by_parameters(path: Path) -> str:
    """CF without WKT, and a transform at the centres of pixels."""
    said = geozarr(40, 60) | {
        "spatial:registration": "node", "spatial:transform": [1, 0, WEST + 0.5, 0, -1, NORTH - 0.5],
    }  # fmt: skip
    store = write_arrays(
        path, {"red": IMAGE}, attributes={key: said[key] for key in said if "proj" not in key}
    )
    mapping = zarr.open_group(store).create_array("utm", shape=(), dtype="int32")
    mapping.attrs.update({
        "grid_mapping_name": "transverse_mercator", "semi_major_axis": 6378137.0,
        "inverse_flattening": 298.257223563, "longitude_of_central_meridian": 15.0,
        "latitude_of_projection_origin": 0.0, "scale_factor_at_central_meridian": 0.9996,
        "false_easting": 500000.0, "false_northing": 0.0, "horizontal_datum_name": "WGS 84",
    })  # fmt: skip
    zarr.open_array(store / "red").attrs["grid_mapping"] = "utm: x y"
    return f"{store}/red"


def of_gdal(path: Path) -> str:
    """As GDAL writes it into Zarr 2, whose fill value is nodata."""
    with rasterio.open(write(path.with_suffix(".tif"), IMAGE[None], nodata=7)) as image:
        rasterio.shutil.copy(image, path, driver="Zarr", FORMAT="ZARR_V2")
    (only,) = (found for found, _ in arrays_in(str(path)) if Path(found).name not in {"X", "Y"})
    return only


MAKERS = [of_zarr_python, of_xarray, sliced, of_an_inner_group, said_by_itself, by_parameters, of_gdal]


@pytest.mark.parametrize("maker", MAKERS)
def test_pixels_lie_where_the_maker_says(tmp_path: Path, maker: Any) -> None:
    with ZarrRaster(maker(tmp_path / "a.zarr")) as raster:
        np.testing.assert_array_equal(raster.read(1), IMAGE)
        np.testing.assert_allclose(tuple(raster.transform), tuple(PLACE), atol=1e-9)
        utm = CRS.from_epsg(EPSG)
        assert raster.crs == utm or (maker is by_parameters and raster.crs.to_dict() == utm.to_dict() | {
            "ellps": "WGS84"
        }), raster.crs  # fmt: skip
        assert raster.nodatavals == ((7.0,) if maker is of_gdal else (None,))


def test_numbers_mean_what_the_attributes_say(tmp_path: Path) -> None:
    y, x = centres(40, 60)
    values = np.where(IMAGE < 20, np.nan, IMAGE / 1000)
    found = xr.Dataset({"red": (("y", "x"), values, {"units": "m"})}, {"y": y, "x": x}).rio.write_crs(EPSG)
    packed = {"dtype": "int16", "scale_factor": 0.001, "add_offset": -0.1, "_FillValue": -1}
    for encoding, nodata in ((packed, -1.0), ({"dtype": "float32", "_FillValue": -9999.0}, -9999.0)):
        found.to_zarr(
            tmp_path / "a.zarr", mode="w", zarr_format=3, encoding={"red": encoding}, consolidated=False
        )
        with ZarrRaster(f"{tmp_path}/a.zarr/red") as raster:
            assert (raster.nodatavals, raster.units) == ((nodata,), ("m",))
            scale, offset = raster.scales[0], raster.offsets[0]
            pixels = np.ma.filled(raster.read(1, masked=True).astype(float), np.nan) * scale + offset
            np.testing.assert_allclose(pixels, values, atol=6e-4)


@pytest.mark.parametrize(
    ("dimensions", "shape", "said"),
    [
        (("time", "y", "x"), (2, 4, 5), r"holds 2 dates; name one of them, as NAME\.zarr@1/a"),
        (("a", "b", "y", "x"), (2, 3, 4, 5), r"several rasters \(a 2, b 3\)"),
        (("y",), (4,), "1 dimensions"),
    ],
)
def test_what_is_no_raster_says_why(
    tmp_path: Path, dimensions: tuple[str, ...], shape: tuple[int, ...], said: str
) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    group.create_array("a", shape=shape, dtype="uint8", dimension_names=dimensions)
    with pytest.raises(RasterioError, match=said):
        ZarrRaster(f"{tmp_path}/a.zarr/a")


def test_axes_that_run_unevenly_are_no_place(tmp_path: Path) -> None:
    store = write_xarray(tmp_path / "a.zarr", {"red": IMAGE}, {})
    zarr.open_array(store / "x", mode="a")[7] += 0.3
    with pytest.raises(RasterioError, match="along x are not evenly spaced"):
        ZarrRaster(f"{store}/red")


def test_a_time_is_that_of_the_coordinate_or_of_the_product(tmp_path: Path) -> None:
    y, x = centres(40, 60)
    found = xr.Dataset({"red": (("y", "x"), IMAGE)}, {"y": y, "x": x}).rio.write_crs(EPSG)
    taken = np.datetime64("2024-05-31T10:15:00", "ns")
    for number, one in enumerate((found.assign_coords(time=taken), found.expand_dims(time=[taken]))):
        one.to_zarr(tmp_path / f"{number}.zarr", zarr_format=3, consolidated=False)
        (info,) = describe_files([tmp_path / f"{number}.zarr"])
        assert info.time == "2024-05-31T10:15:00Z"
    said = geozarr(40, 60) | {"stac_discovery": {"properties": {"datetime": "2024-06-05T10:15:59.024Z"}}}
    store = write_arrays(tmp_path / "b.zarr", {"red": IMAGE}, attributes=said)
    assert describe_files([store])[0].time == "2024-06-05T10:15:59Z"
    assert describe_files([store.rename(tmp_path / "b_20240101.zarr")])[0].time == "2024-01-01"
