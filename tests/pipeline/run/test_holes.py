"""Parts of the imagery that cannot be read, from the file to the product and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from conftest import write_scene
from rasterio.errors import RasterioIOError
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from citycover.geometry.window import Window
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
from citycover.job.watch import Watch
from citycover.plan import fit
from citycover.product.product import Product
from citycover.read.file import BandFile
from citycover.run.map import map_scene

SHAPE = (600, 1100)
LOST = Window(64, 128, 192, 256)
"""Of the file, in whole blocks."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """Parts of any file that cannot be read, as long as they stand in the list."""
    lost = [LOST]
    read = BandFile._read_part

    def read_or_fail(self: BandFile, handle: Any, window: Window, *into: Any) -> None:
        if any(window.clip(part) for part in lost):
            raise RasterioIOError("HTTP response code: 500")
        read(self, handle, window, *into)

    monkeypatch.setattr(BandFile, "_read_part", read_or_fail)
    return lost


@pytest.fixture
def request_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MapRequest:
    """A map in six blocks."""
    monkeypatch.setattr(fit, "MAX_BLOCK_HEIGHT", fit.CHUNK)
    monkeypatch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    scene = write_scene(tmp_path / "scene.tif", SHAPE, **tiles)
    engine = EngineOptions(window=256, batch=1, precision="fp32", threads=1)
    return MapRequest(Imagery((str(scene),)), tmp_path / "out", "spectral-rgbn", engine=engine)


def classes_of(product: Product) -> np.ndarray:
    with rasterio.open(Path(str(product.folder)) / "landcover.tif") as file:
        return file.read(1)


def test_what_was_not_read_is_nodata_and_drawn_where_it_lies(
    request_of_blocks: MapRequest, failing: list[Window]
) -> None:
    product = map_scene(request_of_blocks)
    out = Path(str(product.folder))
    assert out / "holes.geojson" in product.files
    features = json.loads((out / "holes.geojson").read_text())["features"]
    with rasterio.open(out / "landcover.tif") as file:
        shapes = [transform_geom("OGC:CRS84", file.crs, feature["geometry"]) for feature in features]
        drawn = rasterize(shapes, file.shape, transform=file.transform).astype(bool)
        np.testing.assert_array_equal(drawn, file.read(1) == 0)
    assert drawn.sum() == LOST.pixels
    assert {feature["properties"]["reason"] for feature in features} == {"HTTP response code: 500"}
    asset = json.loads((out / "item.json").read_text())["assets"]["holes"]
    assert asset["href"] == "./holes.geojson" and asset["type"] == "application/geo+json"
    assert asset["file:size"] == (out / "holes.geojson").stat().st_size
    assert shapely.geometry.shape(features[0]["geometry"]).is_valid


def test_a_map_without_holes_has_no_such_file_and_takes_it_away(
    request_of_blocks: MapRequest, failing: list[Window]
) -> None:
    out = Path(str(map_scene(request_of_blocks).folder))
    assert (out / "holes.geojson").exists()
    failing.clear()
    again = replace(request_of_blocks, product=ProductOptions(overwrite=True))
    assert not map_scene(again).run.holes
    assert not (out / "holes.geojson").exists()
    assert "holes" not in json.loads((out / "item.json").read_text())["assets"]


@pytest.mark.parametrize("blocks", [1, 3, 5])
def test_a_run_that_goes_on_reads_again_what_failed(
    request_of_blocks: MapRequest, failing: list[Window], tmp_path: Path, blocks: int
) -> None:
    """After any number of blocks, whichever of them has the hole in its entry."""

    class InterruptedRunError(Exception):
        pass

    seen: list[object] = []

    def end(block: object) -> None:
        seen.append(block)
        if len(seen) == blocks:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        map_scene(request_of_blocks, Watch(advanced=end))
    failing.clear()
    product = map_scene(request_of_blocks)
    assert product.run.resumed and not product.run.holes
    assert not (Path(str(product.folder)) / "holes.geojson").exists()
    straight = map_scene(replace(request_of_blocks, out=tmp_path / "straight"))
    np.testing.assert_array_equal(classes_of(product), classes_of(straight))


def test_what_is_far_from_a_hole_is_kept(request_of_blocks: MapRequest, failing: list[Window]) -> None:
    """Blocks that no window beside the hole looks at are not made anew."""
    made: list[tuple[int, int]] = []

    class InterruptedRunError(Exception):
        pass

    def end(block: Any) -> None:
        made.append(block.index)
        if len(made) == 5:
            raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        map_scene(request_of_blocks, Watch(advanced=end))
    again: list[tuple[int, int]] = []
    map_scene(request_of_blocks, Watch(advanced=lambda block: again.append(block.index)))
    assert (0, 2) in made and (0, 2) not in again
    assert (0, 0) in made and (0, 0) in again
