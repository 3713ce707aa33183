"""The image under a map: the bands that people see, of files that are still there."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from making import make_card, make_legend, make_record
from PIL import Image
from stores import write_arrays

from citycover.errors import SceneError
from citycover.model.card import BandGroup
from citycover.product.record import RunInput, RunRecord
from citycover.scene.trust import Trust
from citycover.view.image import image_of_files, image_of_run
from citycover.view.mercator import Tile

TILE = Tile(17, 43_000, 70_300)
LATITUDE = 52.0
VALUES = np.random.default_rng(0).integers(1, 3000, (4, 256, 256)).astype(np.uint16)
NAMES = ("blue", "green", "red", "nir")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    values = VALUES.copy()
    values[:, :20, :30] = 0
    with rasterio.open(
        path, "w", driver="GTiff", width=256, height=256, count=4, dtype="uint16", nodata=0,
        crs="EPSG:3857", transform=Affine(*TILE.grid.transform[:6]),
    ) as dataset:  # fmt: skip
        dataset.write(values)
        dataset.descriptions = NAMES
    return path


def record_of(*files: str, inputs: tuple[str, ...] = ()) -> RunRecord:
    record = make_record(make_legend())
    group = BandGroup(bands=("red", "green", "blue"), dtypes=("uint16",), fill=(0.0, 0.0, 0.0))
    card = make_card(64, 0, 0, groups=(group,))
    given = replace(
        record.given,
        request={"imagery": {"files": list(files), "trust": {"remote": True, "folders": ["/"]}}},
        card=card.model_dump(mode="json"),
        inputs=tuple(RunInput(path, 1, 1) for path in inputs),
    )
    return replace(record, given=given)


def test_the_bands_of_a_store_are_shown_as_those_of_the_file(scene: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as image:
        bands, place = dict(zip(NAMES, image.read(), strict=True)), list(image.transform)[:6]
    said = {"proj:code": "EPSG:3857", "spatial:transform": place, "spatial:shape": [256, 256]}
    store = write_arrays(tmp_path / "a.zarr", bands, attributes=said, chunks=(50, 60))
    for name in NAMES:
        zarr.open_array(store / name).attrs["_FillValue"] = 0
    images = [image_of_files([given], LATITUDE, Trust()) for given in (scene, store)]
    for tile in (TILE, Tile(TILE.level + 1, 2 * TILE.col + 1, 2 * TILE.row), Tile(16, 21_500, 35_150)):
        one, other = (np.array(Image.open(io.BytesIO(image.tile(tile.grid)))) for image in images)
        np.testing.assert_array_equal(one, other)


def test_a_tile_is_red_green_and_blue_stretched_alike(scene: Path) -> None:
    image = image_of_files([scene], LATITUDE, Trust())
    seen = np.array(Image.open(io.BytesIO(image.tile(TILE.grid))))
    valid = np.ones((256, 256), bool)
    valid[:20, :30] = False
    np.testing.assert_array_equal(seen[..., 3] > 0, valid)
    for place, name in enumerate(("red", "green", "blue")):
        low, high = image.limits[place]
        values = VALUES[NAMES.index(name)].astype(float)
        right = ((values - low) * 255 / (high - low)).clip(0, 255)
        np.testing.assert_allclose(seen[..., place][valid], right[valid], atol=1.001)
        assert low == pytest.approx(np.percentile(values[valid], 2), rel=0.05)


def test_an_image_without_a_crs_is_refused(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "bare.tif", "w", driver="GTiff", width=8, height=8, count=3, dtype="uint8",
        transform=Affine(2, 0, 0, 0, -2, 0),
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((3, 8, 8), np.uint8))
    with pytest.raises(SceneError):
        image_of_files([tmp_path / "bare.tif"], LATITUDE, Trust())


def test_what_a_map_was_made_of_is_found_where_the_record_says(
    scene: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    record = record_of("scene.tif", inputs=(str(scene),))
    image = image_of_run(record, LATITUDE, Trust())
    assert image is not None and image.scene.groups[0].bands[0].path == str(scene)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (("gone.tif",), "gone.tif"),
        ((), "names no file"),
        (("https://evil.example/x.tif",), "nothing was fetched"),
    ],
)
def test_without_it_there_is_no_image_and_the_record_has_no_say_in_trust(
    caplog: pytest.LogCaptureFixture, files: tuple[str, ...], why: str
) -> None:
    with caplog.at_level(logging.INFO):
        assert image_of_run(record_of(*files), LATITUDE, Trust()) is None
    assert why in caplog.text
