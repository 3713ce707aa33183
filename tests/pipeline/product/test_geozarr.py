"""landcover.zarr against the COGs of the same product, and against zarr-python, xarray and rioxarray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401 - gives .rio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasters import read_scene

import citycover
from citycover.errors import ConfigError
from citycover.geometry.grid import grid_of
from citycover.geometry.window import Window
from citycover.job.request import ProductOptions
from citycover.plan import fit
from citycover.product.geozarr import _georeference
from citycover.run.map import map_scene
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files
from citycover.store.store import WorkingStore
from citycover.synth.write import write_city

LAYERS = ("probabilities", "entropy", "second", "margin")
FILES = {"classes": "landcover", **{name: name for name in ("confidence", *LAYERS)}}


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 1130 x 1130 in nine blocks, part of it nodata."""
    folder = tmp_path_factory.mktemp("zarr")
    write_city(folder, 1130, 3)
    with rasterio.open(folder / "image.tif", "r+") as image:
        image.nodata = 0
        image.write(np.zeros((4, 150, 90), np.uint8), window=rasterio.windows.Window(200, 100, 90, 150))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "MAX_BLOCK_HEIGHT", fit.CHUNK)
        patch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)
        request = citycover.MapRequest(
            citycover.Imagery((str(folder / "image.tif"),)),
            folder / "out",
            "spectral-rgbn",
            engine=citycover.EngineOptions(window=512, precision="fp32"),
            product=ProductOptions(formats=("cog", "zarr")),
            layers=LAYERS,
        )
        map_scene(request)
    return folder / "out"


def test_it_opens_in_xarray_and_rioxarray_as_the_cogs_do(product: Path) -> None:
    with xr.open_zarr(product / "landcover.zarr", decode_coords="all", mask_and_scale=False) as found:
        assert list(found.coords) and "spatial_ref" in found.coords
        for name, file in FILES.items():
            with rasterio.open(product / f"{file}.tif") as cog:
                np.testing.assert_array_equal(np.atleast_3d(found[name].to_numpy().T).T, cog.read())
                assert found.rio.crs == cog.crs and found.rio.transform() == cog.transform
                assert found[name].rio.nodata == cog.nodata
        flags = dict(zip(found.classes.flag_values, found.classes.flag_meanings.split(), strict=True))
    with rasterio.open(product / "landcover.tif") as cog:
        height, width = cog.shape
        centre = cog.transform * (0.5, 0.5)
        assert (found.x.values[0], found.y.values[0]) == centre and len(flags) == 5
        np.testing.assert_allclose(np.diff(found.x.values), cog.transform.a)
        assert found.sizes["y"] == height and found.sizes["x"] == width


def test_it_is_a_scene_with_the_pixels_of_the_cogs(product: Path) -> None:
    for info in describe_files([product / "landcover.zarr"]):
        scene = describe_scene([info.path], None)
        values, valid, holes = read_scene(scene, [Window(row, 0, 226, 1130) for row in range(0, 1130, 226)])
        with rasterio.open(product / f"{FILES[info.name]}.tif") as cog:
            assert not holes and info.grid == grid_of(cog) and info.dtypes == cog.dtypes
            assert (info.nodata, info.shape) == (cog.nodatavals, cog.shape)
            np.testing.assert_array_equal(valid, cog.dataset_mask() > 0 if cog.count == 1 else valid)
            np.testing.assert_array_equal(np.moveaxis(values, 2, 0)[:, valid], cog.read()[:, valid])


def test_scaled_values_are_what_they_stand_for(product: Path) -> None:
    with xr.open_zarr(product / "landcover.zarr") as found:
        total = found.probabilities.sum("class", skipna=False).to_numpy()
        np.testing.assert_allclose(total[np.isfinite(total)], 1, atol=1e-5)
        assert np.isnan(total).sum() == 150 * 90


def test_levels_are_the_overviews_of_the_cogs(product: Path) -> None:
    root = zarr.open_group(product / "landcover.zarr", mode="r")
    layout = root.attrs["multiscales"]["layout"]
    assert [level["asset"] for level in layout] == [".", "1", "2"]
    for level, asset in enumerate(["1", "2"]):
        for name, file in FILES.items():
            with rasterio.open(product / f"{file}.tif", overview_level=level) as cog:
                np.testing.assert_array_equal(
                    root[f"{asset}/{name}"][:].reshape(cog.count, *cog.shape), cog.read()
                )
        with xr.open_zarr(product / "landcover.zarr", group=asset, decode_coords="all") as coarse:
            assert coarse.rio.resolution()[0] == 2 ** int(asset)
            origin = coarse.rio.transform() * (0, 0)
            assert origin == tuple(root.attrs["spatial:transform"][2::3])


def test_all_metadata_is_consolidated_in_the_root(product: Path) -> None:
    folder = product / "landcover.zarr"
    said = json.loads((folder / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    files = {path.parent.relative_to(folder).as_posix(): path for path in folder.rglob("zarr.json")}
    assert set(said) == set(files) - {"."}
    assert all(json.loads(files[name].read_text()) == about for name, about in said.items())
    assert zarr.open_consolidated(folder, mode="r")["2/classes"].shards == (1024, 1024)


def test_the_box_of_a_turned_grid_holds_all_its_corners() -> None:
    grid = GeoBox((40, 30), Affine.translation(5e5, 5.8e6) * Affine.rotation(30) * Affine.scale(2, -2), 32633)
    corners = [grid.transform * corner for corner in ((0, 0), (30, 0), (30, 40), (0, 40))]
    xs, ys = zip(*corners, strict=True)
    assert _georeference(grid)["spatial:bbox"] == [min(xs), min(ys), max(xs), max(ys)]


def test_open_product_takes_it_and_gives_what_the_cogs_give(product: Path, tmp_path: Path) -> None:
    maps = citycover.open_product(product)
    assert maps.classes.chunks[0] == (512, 512, 106)
    hidden = (product / "landcover.zarr").rename(tmp_path / "hidden.zarr")
    try:
        of_cogs = citycover.open_product(product).load()
    finally:
        hidden.rename(product / "landcover.zarr")
    xr.testing.assert_equal(maps.load(), of_cogs)
    assert (maps.rio.crs, maps.rio.transform()) == (of_cogs.rio.crs, of_cogs.rio.transform())
    for name, layer in of_cogs.data_vars.items():
        assert str(maps[name].attrs) == str(layer.attrs)


def test_a_product_goes_into_netcdf(product: Path, tmp_path: Path) -> None:
    maps = citycover.open_product(product)
    assert json.loads(maps.attrs["run"])["card"]["name"] == "spectral-rgbn"
    maps[["classes", "second"]].to_netcdf(tmp_path / "maps.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "maps.nc", mask_and_scale=False) as back:
        np.testing.assert_array_equal(back.classes.to_numpy().astype(np.uint8), maps.classes.to_numpy())


def test_the_item_lists_it(product: Path, validator: JsonSchemaSTACValidator) -> None:
    item = pystac.Item.from_file(str(product / "item.json"))
    assert len(item.validate(validator)) == 1 + len(item.stac_extensions)
    asset = item.assets["landcover.zarr"]
    assert (asset.media_type, asset.roles) == ("application/vnd.zarr; version=3", ["data"])


@pytest.mark.parametrize("formats", [("zarr",), ("cog", "hdf"), ("",)])
def test_other_formats_are_refused(formats: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--format takes cog, or cog,zarr"):
        ProductOptions(formats=formats)


def test_half_written_shards_of_a_killed_run_do_not_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array_key = WorkingStore.array_key

    def with_a_rest(store: WorkingStore, name: str, level: int = 0) -> str:
        key = array_key(store, name, level)
        shards = tmp_path / "out" / ".work" / key / "c" / "0"
        if shards.is_dir():
            (shards / ".0.host.1.tmp").write_bytes(b"half")
        return key

    monkeypatch.setattr(WorkingStore, "array_key", with_a_rest)
    write_city(tmp_path, 200, 3)
    map_scene(
        citycover.MapRequest(
            citycover.Imagery((str(tmp_path / "image.tif"),)),
            tmp_path / "out",
            "spectral-rgbn",
            product=ProductOptions(formats=("cog", "zarr")),
        )
    )
    assert (tmp_path / "out" / "landcover.zarr" / "classes" / "c" / "0" / "0").is_file()
    assert not list((tmp_path / "out").rglob("*.tmp"))
