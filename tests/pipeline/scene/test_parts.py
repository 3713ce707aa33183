"""Variables of Zarr, NetCDF and HDF5 as bands of a scene."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio.shutil
import xarray as xr
import zarr
from rasterio.crs import CRS
from rasters import read_scene, write
from stores import EPSG, centres, geozarr, write_arrays, write_xarray

from citycover.errors import SceneError
from citycover.files.folders import STORED, chunks_in
from citycover.model.archive import read_model_file
from citycover.model.builtin import builtin_path
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files
from citycover.scene.laying import Laying

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
    name = "spatial_ref" if located else "mapping"
    put(name, np.zeros((), np.int32), [], crs_wkt=CRS.from_epsg(32633).to_wkt())
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


def test_variables_beside_those_that_are_used_do_no_harm(tmp_path: Path) -> None:
    """Nobody can leave one out of a container; a file can be left out."""
    three = {"red": IMAGE[0], "nir": IMAGE[1], "sunshine": IMAGE[0]}
    store = write_xarray(tmp_path / "a.zarr", three, {})
    netcdf = write_cf(tmp_path / "a.nc", three)
    for container in (store, netcdf):
        values, _, _ = read_scene(describe_scene([container], None, bands=("red", "nir")))
        np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)
    other = write_xarray(tmp_path / "b.zarr", {"sunshine": IMAGE[0]}, {})
    with pytest.raises(SceneError, match=r"no band of sunshine is used"):
        describe_scene([store, other], None, bands=("red", "nir"))


def write_cf(path: Path, bands: dict[str, np.ndarray]) -> Path:
    """Variables with coordinates and a grid mapping of CF."""
    y, x = centres(40, 60)
    found = xr.Dataset({name: (("y", "x"), values.astype("i2")) for name, values in bands.items()})
    found.assign_coords(y=y, x=x).rio.write_crs(EPSG).rio.write_coordinate_system().to_netcdf(
        path, engine="scipy"
    )
    return path


def test_variables_that_are_no_map_are_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"a.zarr has 2 arrays, and none .* has no CRS .* rio.write_crs"):
        describe_files([write_zarr(tmp_path / "a.zarr", located=False)])


def test_a_store_whose_variables_cannot_be_read_says_why(tmp_path: Path) -> None:
    store = write_zarr(tmp_path / "a.zarr")
    for name in ("red", "nir"):
        text = (store / name / ".zarray").read_text()
        (store / name / ".zarray").write_text(
            text.replace('"compressor": null', '"compressor": {"id": "new"}')
        )
    with pytest.raises(SceneError, match=r"a\.zarr has 2 arrays.*(red|nir): .*new"):
        describe_files([store])


def paths_of(store: Path) -> list[str]:
    """What a store is as a scene, by path in it."""
    return [str(Path(info.path).relative_to(store)) for info in describe_files([store])]


@pytest.mark.parametrize("sharded", [False, True])
def test_arrays_of_zarr_3_are_bands_by_name(tmp_path: Path, sharded: bool) -> None:
    bands = dict(zip(("red", "nir"), IMAGE, strict=True))
    shards = {"shards": (32, 32)} if sharded else {}
    by_xarray = write_xarray(tmp_path / "a.zarr", bands, {"chunks": (16, 16)} | shards)
    by_zarr = write_arrays(tmp_path / "b.zarr", bands, chunks=(16, 16), **shards)
    for store in (by_xarray, by_zarr):
        scene = describe_scene([store], None, bands=("red", "nir"))
        values, valid, holes = read_scene(scene)
        assert valid.all() and not holes
        np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)
        assert {path for path, _, _ in scene.fingerprints} == {f"{store}/red", f"{store}/nir"}
    (one,) = describe_files([by_zarr / "nir"])
    assert (one.bands[0].names, one.block, one.compression) == (("nir",), (16, 16), "ZSTD")


def test_an_array_of_several_bands_has_the_names_of_its_coordinate(tmp_path: Path) -> None:
    store = write_arrays(tmp_path / "a.zarr", {"image": IMAGE}, ("band", "y", "x"))
    (info,) = describe_files([store])
    assert info.descriptions == (None, None)
    labels = zarr.open_group(store).create_array("band", shape=2, dtype="string", dimension_names=("band",))
    labels[:] = np.array(["B04", "B08"], dtype=object)
    (info,) = describe_files([store])
    assert [band.names for band in info.bands] == [("red", "b04"), ("nir", "b08")]


def test_of_a_pyramid_the_finest_level_counts(tmp_path: Path) -> None:
    """Levels that are groups, as citycover writes them, and levels that are arrays, as OME does."""
    groups, arrays = tmp_path / "a.zarr", tmp_path / "b.zarr"
    for level, side in (("", 1), ("/1", 2), ("/2", 4)):
        part = {"red": IMAGE[0, ::side, ::side][: 39 // side + 1], "nir": IMAGE[1, ::side, ::side]}
        place = geozarr(*part["red"].shape, side)
        write_arrays(Path(f"{groups}{level}"), part, attributes=place)
        said = {"multiscales": [{"datasets": [{"path": "0"}, {"path": "1"}, {"path": "2"}]}]}
        write_arrays(arrays, {str(side // 2): part["red"]}, attributes=said)
        zarr.open_array(arrays / str(side // 2)).attrs.update(place)
    assert paths_of(groups) == ["nir", "red"]
    assert paths_of(arrays) == ["0"]


def test_levels_may_be_placed_by_the_group_above(tmp_path: Path) -> None:
    """As the convention `multiscales` has it: where each level lies stands in the layout."""
    store = tmp_path / "a.zarr"
    layout = []
    for level, side in (("0", 1), ("1", 2)):
        place = geozarr(40 // side, 60 // side, side)
        layout.append({"asset": level} | {key: place[key] for key in ("spatial:transform", "spatial:shape")})
        write_arrays(store / level, {"red": IMAGE[0, ::side, ::side]}, attributes={})
    said = {
        "proj:code": f"EPSG:{EPSG}",
        "spatial:dimensions": ["z", "y", "x"],
        "multiscales": {"layout": layout},
    }
    zarr.open_group(store, mode="a", zarr_format=3).attrs.update(said)
    assert paths_of(store) == ["0/red"]
    (coarse,) = describe_files([store / "1/red"])
    assert coarse.transform == (2, 0, 5e5, 0, -2, 5.8e6)


def test_a_place_of_a_group_is_none_of_what_lies_deeper(tmp_path: Path) -> None:
    said = {key: value for key, value in geozarr(40, 60).items() if key != "spatial:shape"}
    store = write_arrays(tmp_path / "a.zarr", {"red": IMAGE[0]}, attributes=said)
    write_arrays(store / "1", {"red": IMAGE[0, ::2, ::2]}, attributes={})
    assert paths_of(store) == ["red"]


def test_bands_of_other_resolutions_stay_where_no_finer_one_shows_them(tmp_path: Path) -> None:
    """As products of Sentinel-2 come: B02 at 10 and at 20 metres, B05 at 20 alone; and one elsewhere."""
    store = tmp_path / "S2A_MSIL2A_20240531T101031.zarr"
    zarr.open_group(store, mode="w", zarr_format=3)
    fine, coarse = np.ones((20, 20), np.uint16), np.ones((10, 10), np.uint16)
    write_arrays(store / "r10m", {"b02": fine}, attributes=geozarr(20, 20, 10))
    write_arrays(store / "r20m", {"b02": coarse, "b05": coarse}, attributes=geozarr(10, 10, 20))
    far = geozarr(10, 10, 20) | {"spatial:transform": [20, 0, 0, 0, -20, 0]}
    write_arrays(store / "far", {"b02": coarse}, attributes=far)
    assert paths_of(store) == ["far/b02", "r10m/b02", "r20m/b05"]
    found = describe_files([store / "r10m", store / "r20m/b05"])
    assert [info.bands[0].names for info in found] == [("blue", "b02"), ("rededge1", "b05")]
    assert {info.time for info in describe_files([store])} == {"2024-05-31T10:10:31Z"}


def test_of_a_product_of_eopf_its_measurements_and_its_classes_count(tmp_path: Path) -> None:
    """Its masks of quality are called as the bands are, and lie on their grids."""
    store = tmp_path / "S2B_MSIL2A_20240605T101559.zarr"
    zarr.open_group(store, mode="w", zarr_format=3)
    fine, coarse = np.ones((20, 20), np.uint16), np.ones((10, 10), np.uint16)
    for group, name, values in (
        ("measurements/reflectance/r10m", "b02", fine), ("measurements/reflectance/r20m", "b05", coarse),
        ("quality/mask/r10m", "b02", fine), ("conditions/mask/l2a_classification/r20m", "scl", coarse),
    ):  # fmt: skip
        for above in Path(group).parents[:-1]:
            zarr.open_group(store / above, mode="a", zarr_format=3)
        place = geozarr(*values.shape, 200 // len(values))
        write_arrays(store / group, {name: values}, attributes=place)
    found = [Path(path).name for path in paths_of(store)]
    assert found == ["scl", "b02", "b05"]
    assert paths_of(store / "quality") == ["mask/r10m/b02"]


def test_stores_of_a_folder_and_of_a_pattern_are_sheets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_xarray(tmp_path / f"{name}.zarr", {"red": IMAGE[0]}, {})
    wanted = [str(tmp_path / f"{name}.zarr/red") for name in ("a", "b")]
    for given in (str(tmp_path), str(tmp_path / "*.zarr")):
        assert [info.path for info in describe_files([given])] == wanted
    assert [info.bands[0].file for info in describe_files([tmp_path])] == ["a.zarr/red", "b.zarr/red"]


def test_stores_that_are_no_scene_are_refused_with_what_to_do(tmp_path: Path) -> None:
    nowhere = write_arrays(
        tmp_path / "nowhere.zarr", {"red": IMAGE[0]}, attributes={"proj:code": f"EPSG:{EPSG}"}
    )
    with pytest.raises(SceneError, match=r"1 arrays, and none .*red has no CRS or no place\); say where"):
        describe_files([nowhere])
    empty = tmp_path / "empty.zarr"
    zarr.open_group(empty, mode="w", zarr_format=3)
    with pytest.raises(SceneError, match=r"0 arrays.*it is empty"):
        describe_files([empty])
    (empty / "zarr.json").write_text("{")
    with pytest.raises(SceneError, match=r"empty\.zarr is a Zarr store that cannot be opened"):
        describe_files([empty])
    several = write_arrays(tmp_path / "t.zarr", {"red": IMAGE[None]}, ("a", "b", "y", "x"))
    (info,) = describe_files([several])
    assert len(info.bands) == 2
    with pytest.raises(SceneError, match=r"t\.zarr@1/none: there is no such file"):
        describe_files([tmp_path / "t.zarr@1/none"])


def test_a_store_of_citycover_that_lost_a_chunk_is_refused(tmp_path: Path) -> None:
    store = write_arrays(tmp_path / "a.zarr", {"red": IMAGE[0]}, chunks=(16, 16), fill_value=255)
    zarr.open_group(store).attrs[STORED] = chunks_in(store)
    assert paths_of(store) == ["red"]
    (store / "red/c/1/1").unlink()
    for given in (store, store / "red"):
        with pytest.raises(SceneError, match=r"holds 11 chunks .* was written with 12"):
            describe_files([given])


@pytest.mark.parametrize("stacked", [False, True])
def test_a_cube_is_a_sheet_for_each_date(tmp_path: Path, stacked: bool) -> None:
    """Variables over time, as odc-stac gives them, and one array of dates and bands, as stackstac does."""
    days = np.array(["2024-05-31T10:15:00", "2024-06-10T10:15:00", "2024-06-20T10:15:00"], "datetime64[ns]")
    images = np.random.default_rng(7).integers(1, 250, (3, 2, 40, 60)).astype(np.uint8)  # (time, band, y, x)
    y, x = centres(40, 60)
    axes = {"time": days, "band": np.array(["red", "nir"], object), "y": y, "x": x}
    cube = xr.DataArray(images, dims=("time", "band", "y", "x"), coords=axes).rio.write_crs(EPSG)
    found = cube.to_dataset(name="cube") if stacked else cube.to_dataset("band")
    chunks = (2, 1, 16, 16) if stacked else (2, 16, 16)
    store = tmp_path / "made_20250101.zarr"
    encoding = {name: {"chunks": chunks} for name in found.data_vars}
    found.to_zarr(store, zarr_format=3, encoding=encoding, consolidated=False)
    infos = describe_files([store])
    assert {info.time for info in infos} == {f"{day}Z" for day in np.datetime_as_string(days, "s")}
    for number in range(3):
        values, valid, holes = read_scene(describe_scene([f"{store}@{number}"], None, bands=("red", "nir")))
        assert valid.all() and not holes
        np.testing.assert_array_equal(np.moveaxis(values, 2, 0), images[number])
    scene = describe_scene([store], None, bands=("red", "nir"), laying=Laying(composite="median"))
    assert scene.dates == ("2024-06-20", "2024-06-10", "2024-05-31")
    assert len(scene.fingerprints) == (1 if stacked else 2)
    np.testing.assert_array_equal(read_scene(scene)[0], np.median(images, 0).transpose(1, 2, 0))
    (store / ("cube/c/1/0/1/1" if stacked else "red/c/1/1/1")).unlink()
    _, valid, holes = read_scene(describe_scene([f"{store}@2"], None))
    assert holes and not valid[16:32, 16:32].any() and valid.sum() == 40 * 60 - 256
    assert read_scene(describe_scene([f"{store}@1"], None))[1].all()


def test_of_a_cube_without_a_choice_the_way_out_is_told(tmp_path: Path) -> None:
    store = write_arrays(tmp_path / "t.zarr", {"red": IMAGE}, ("time", "y", "x"))
    with pytest.raises(SceneError, match=r"t\.zarr@0/red .* and band 1 of t\.zarr@1/red .* --composite"):
        describe_scene([store], read_model_file(builtin_path("spectral-rgb")).card)
    with pytest.raises(SceneError, match=r"it holds 2 dates; name one"):
        describe_files([f"{store}@7"])
