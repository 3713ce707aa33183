from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

import citycover
from citycover.compute import choices
from citycover.errors import ConfigError, ModelError, SceneError
from citycover.job.request import EngineOptions
from citycover.model.trusted import TRUSTED
from citycover.run import arrays
from citycover.synth.write import write_city


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city")
    write_city(folder, 400, 3)
    with rasterio.open(folder / "image.tif", "r+") as image:
        image.nodata = 0
        image.write(np.zeros((4, 50, 90), np.uint8), window=rasterio.windows.Window(200, 100, 90, 50))
    return folder / "image.tif"


@pytest.fixture(scope="module")
def product(city: Path) -> Path:
    out = city.parent / "out"
    engine = citycover.EngineOptions(window=160, precision="fp32")
    request = citycover.MapRequest(citycover.Imagery((str(city),)), out, "spectral-rgbn", engine=engine)
    citycover.map_scene(request)
    return out


@pytest.mark.parametrize("chunks", [None, {"y": 100, "x": 150}, {"y": 33, "x": 400}])
def test_a_lazy_map_has_the_pixels_of_the_product(city: Path, product: Path, chunks) -> None:
    image = rioxarray.open_rasterio(city, chunks=chunks)
    engine = EngineOptions(window=160, block=(120, 170))
    mapped = citycover.predict_array(image, "spectral-rgbn", engine=engine)
    assert mapped.classes.chunks is not None, "nothing is computed yet"
    assert max(mapped.classes.chunks[0]) == 120
    done = citycover.open_product(product)
    xr.testing.assert_identical(mapped.classes.compute(), done.classes.compute())
    xr.testing.assert_identical(mapped.confidence.compute(), done.confidence.compute())
    assert (mapped.classes.values == 0).sum() == 50 * 90
    assert mapped.rio.crs == done.rio.crs and mapped.rio.transform() == done.rio.transform()
    assert "water" in mapped.classes.attrs["flag_meanings"]


def test_a_part_of_a_lazy_map_computes_the_blocks_it_needs(city: Path, monkeypatch) -> None:

    image = rioxarray.open_rasterio(city)
    mapped = citycover.predict_array(
        image, "spectral-rgbn", engine=EngineOptions(window=160, block=(100, 100))
    )
    computed = []
    real = arrays.sweep
    monkeypatch.setattr(
        arrays, "sweep", lambda given, blocks: (computed.extend(blocks), real(given, blocks))[1]
    )
    mapped.classes[:80, :80].compute()
    assert [block.index for block in computed] == [(0, 0)]


def test_floats_with_nan_are_mapped_and_nan_is_nodata(city: Path) -> None:
    image = rioxarray.open_rasterio(city, masked=True).astype("float32")
    with pytest.raises(SceneError, match="uint8"):
        citycover.predict_array(image, "spectral-rgbn")
    mapped = citycover.predict_array(image * 30, "spectral-s2", bands=["red", "green", "blue", "nir"])
    assert (mapped.classes.values == 0).sum() == 50 * 90


@pytest.mark.parametrize("asked", [{"workers": 2}, {"scheduler": "tcp://here:1"}, {"work": "s3://a/b"}])
def test_an_array_is_computed_where_dask_computes(city: Path, asked: dict[str, Any]) -> None:
    image = rioxarray.open_rasterio(city)
    with pytest.raises(ConfigError, match="leave workers, scheduler and work to it"):
        citycover.predict_array(image, "spectral-rgbn", engine=EngineOptions(**asked))
    with pytest.raises(ConfigError, match="this machine takes 1 to"):
        citycover.predict_array(image, "spectral-rgbn", engine=EngineOptions(threads=100_000))


def test_arrays_that_cannot_be_mapped_are_refused(city: Path, tmp_path: Path) -> None:
    image = rioxarray.open_rasterio(city)
    with pytest.raises(SceneError, match="nir"):
        citycover.predict_array(image[:3].assign_attrs(long_name=("red", "green", "blue")), "spectral-rgbn")
    with pytest.raises(SceneError, match="CRS"):
        citycover.predict_array(image.drop_vars("spatial_ref"), "spectral-rgbn")
    with pytest.raises(SceneError, match="dimensions"):
        citycover.predict_array(image[0], "spectral-rgbn")
    with pytest.raises(SceneError, match=r"landcover\.tif"):
        citycover.open_product(tmp_path)


def test_importing_citycover_imports_neither_torch_nor_xarray() -> None:
    import subprocess
    import sys

    code = "import citycover, sys; print([m for m in ('torch', 'xarray', 'dask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda image: xr.Dataset({"red": image[0]}), "to_array"),
        (lambda image: image.expand_dims(time=[0]), "isel"),
        (lambda image: image[0], "squeeze"),
        (lambda image: image.astype("float64").where(image > 0).astype("complex64"), "astype"),
    ],
)
def test_arrays_of_another_kind_are_refused_with_the_way_on(city: Path, change, remedy: str) -> None:
    with pytest.raises(SceneError, match=remedy):
        citycover.predict_array(change(rioxarray.open_rasterio(city)), "spectral-rgbn")


@pytest.mark.parametrize("chunks", [None, {}])
def test_colours_of_an_ordinary_photo_are_found_in_the_file_it_came_from(
    city: Path, tmp_path: Path, chunks
) -> None:
    with rasterio.open(city) as image:
        values, profile = image.read(), image.profile
    profile |= {"count": 3, "photometric": "rgb", "nodata": None}
    with rasterio.open(tmp_path / "rgb.tif", "w", **profile) as photo:
        photo.write(values[:3])
    image = rioxarray.open_rasterio(tmp_path / "rgb.tif", chunks=chunks)
    found = citycover.predict_array(image, "spectral-rgb")
    named = citycover.predict_array(image, "spectral-rgb", bands=("1", "2", "3"))
    xr.testing.assert_identical(found.compute(), named.compute())
    turned = citycover.predict_array(image[::-1], "spectral-rgb")
    xr.testing.assert_identical(found.compute(), turned.compute())
    with pytest.raises(SceneError, match=r"pass bands= "):
        citycover.predict_array(image + np.uint8(1), "spectral-rgb")


def written(path: Path, values: np.ndarray, **changes: object) -> Path:
    """Red, green, blue, near infrared and what follows them."""
    profile = {
        "driver": "GTiff", "height": values.shape[1], "width": values.shape[2], "count": len(values),
        "dtype": values.dtype, "crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5.8e6),
    }  # fmt: skip
    names = ("red", "green", "blue", "nir", "opacity")[: len(values)]
    with rasterio.open(path, "w", **profile | changes) as image:
        image.write(values)
        image.descriptions = names
        image.colorinterp = [COLOURS.get(name, ColorInterp.undefined) for name in names]
    return path


COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue,
           "opacity": ColorInterp.alpha}  # fmt: skip


def mapped_by_file(path: Path, model: str, out: Path, **imagery: Any) -> np.ndarray:
    request = citycover.MapRequest(citycover.Imagery((str(path),), **imagery), out, model)
    return citycover.open_product(citycover.map_scene(request).folder).classes.values


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize("bands", [(0, 1, 2, 3, 4), (4, 2, 1, 0, 3)])
def test_opacity_of_the_file_that_an_array_came_from_counts(tmp_path: Path, bands: tuple, chunks) -> None:
    values = np.random.default_rng(0).integers(1, 255, (5, 40, 60), np.uint8)
    values[4, :, :25] = 0
    path = written(tmp_path / "a.tif", values)
    image = rioxarray.open_rasterio(path, chunks=chunks)
    found = citycover.predict_array(image[list(bands)], "spectral-rgbn").classes.values
    assert ((found == 0) == (values[4] == 0)).all()
    np.testing.assert_array_equal(found, mapped_by_file(path, "spectral-rgbn", tmp_path / "out"))


@pytest.mark.parametrize("what", ["mask", "opacity"])
def test_what_says_validity_and_is_not_in_the_array_is_pointed_out(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).integers(1, 255, (5 if what == "opacity" else 4, 40, 60), np.uint8)
    path = written(tmp_path / "a.tif", values)
    if what == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as image:
            image.write_mask(values[0] > 99)
    citycover.predict_array(rioxarray.open_rasterio(path)[:4], "spectral-rgbn")
    assert "a.tif says which of its pixels are invalid, the array does not" in caplog.text


REFLECTANCE = np.random.default_rng(0).uniform(0.01, 0.4, (4, 8, 12)).repeat(5, 1).repeat(5, 2)
SCALED: dict[str, tuple[str, float, float, str]] = {
    "tags": ("a.tif", 0.0002, -0.1, "uint16"),
    "Landsat by its name": ("LC08_L2SP_193024_20210615_20210622_02_T1_SR_B4.TIF", 0.0000275, -0.2, "uint16"),
}


@pytest.mark.parametrize("opened", [{}, {"masked": True}, {"mask_and_scale": True}], ids=str)
@pytest.mark.parametrize("kind", SCALED)
def test_numbers_of_an_array_mean_what_its_file_says(tmp_path: Path, kind: str, opened: dict) -> None:
    name, scale, offset, dtype = SCALED[kind]
    path = written(tmp_path / name, ((REFLECTANCE - offset) / scale).round().astype(dtype), nodata=0)
    if kind == "tags":
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (scale,) * 4, (offset,) * 4
    bands = ("red", "green", "blue", "nir")
    image = rioxarray.open_rasterio(path, **opened)
    found = citycover.predict_array(image, "spectral-s2", bands=bands).classes.values
    np.testing.assert_array_equal(found, mapped_by_file(path, "spectral-s2", tmp_path / "out", bands=bands))


def test_numbers_of_another_scale_are_refused_unless_the_array_says_what_they_mean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = rioxarray.open_rasterio(written(tmp_path / "a.tif", REFLECTANCE.astype(np.float32)))
    bands = ("red", "green", "blue", "nir")
    with pytest.raises(
        SceneError, match=r"the array .* reflectance of 0 to 1; .* convert it: image \* 10000$"
    ):
        citycover.predict_array(image, "spectral-s2", bands=bands)
    dark = (image * 250).astype("int16").assign_attrs(long_name=bands)
    with pytest.raises(SceneError, match=r"the array .* as of 8 bits; .* say so: image.attrs"):
        citycover.predict_array(dark, "spectral-s2")
    dark.attrs |= {"units": "reflectance", "scale_factor": 0.0001}
    citycover.predict_array(dark, "spectral-s2")
    assert not caplog.text
    lazy = rioxarray.open_rasterio(tmp_path / "a.tif", chunks={})
    assert citycover.predict_array(lazy, "spectral-s2", bands=bands).classes.shape == (40, 60)


def test_an_array_that_lies_nowhere_on_the_earth_is_mapped(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 255, (4, 40, 60), np.uint8)
    path = written(tmp_path / "a.tif", values, crs=CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]'))
    found = citycover.predict_array(rioxarray.open_rasterio(path), "spectral-rgbn", layers=["probabilities"])
    request = citycover.MapRequest(
        citycover.Imagery((str(path),)), tmp_path / "out", layers=("probabilities",)
    )
    done = citycover.open_product(citycover.map_scene(request).folder)
    xr.testing.assert_identical(found.compute(), done.drop_attrs(deep=False).compute())
    assert done.rio.transform() == Affine(10, 0, 5e5, 0, -10, 5.8e6) and "site grid" in done.rio.crs.to_wkt()


def test_the_public_door_shows_what_stands_behind_it() -> None:
    assert {"map_scene", "predict_array", "open_product", "MapRequest"} <= set(dir(citycover))
    assert all(hasattr(citycover, name) for name in dir(citycover))


def test_an_array_is_mapped_by_a_model_that_is_trusted(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rioxarray.open_rasterio(city)
    with pytest.raises(ModelError, match="is required"):
        citycover.predict_array(image, "spectral-rgbn", require_hash="0" * 64)
    (tmp_path / "trusted.txt").write_text("0" * 64)
    monkeypatch.setenv(TRUSTED, str(tmp_path / "trusted.txt"))
    with pytest.raises(ModelError, match="is not trusted"):
        citycover.predict_array(image, "spectral-rgbn")


def test_memory_is_bounded_for_every_layer_that_is_made(city: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, bounded = choices.keep_memory, []

    def keep_memory(plan, scene, predictor, bound, layers):
        bounded.extend(layer.name for layer in layers)
        return real(plan, scene, predictor, bound, layers)

    monkeypatch.setattr(choices, "keep_memory", keep_memory)
    engine = EngineOptions(window=160, memory=64)
    mapped = citycover.predict_array(
        rioxarray.open_rasterio(city), "spectral-rgbn", engine=engine, layers=["probabilities"]
    )
    assert bounded == list(mapped.data_vars) == ["classes", "confidence", "probabilities"]
