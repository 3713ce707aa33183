"""Collections of STAC items through the command line: sheets are opened where the map needs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from conftest import Result, write_scene

OPTIONS = ("--model", "spectral-rgbn", "--device", "cpu", "--window", "64", "--precision", "fp32", "--quiet")

NAMES = ("red", "green", "blue", "nir")


def write_items(folder: Path, count: int = 10) -> tuple[Path, Path]:
    """An image of 40 rows, and the collection of items of its sheets of 60 columns."""
    whole = write_scene(folder / "whole.tif", (80, 60 * count))
    items: list[dict[str, Any]] = []
    with rasterio.open(whole) as image:
        pixels = image.read()
    for number in range(count):
        at = Affine(1, 0, 500_000 + 60 * number, 0, -1, 5_800_000)
        part = pixels[:, :, 60 * number : 60 * (number + 1)]
        write_scene(folder / f"{number}.tif", part.shape[1:], values=part, transform=at)
        asset = {
            "href": f"{number}.tif",
            "roles": ["data"],
            "bands": [{"name": name, "data_type": "uint8"} for name in NAMES],
            "proj:transform": list(at)[:6],
        }
        items.append({
            "type": "Feature", "stac_version": "1.1.0", "id": f"{number}", "geometry": None, "links": [],
            "properties": {"datetime": "2024-05-31T10:00:00Z", "proj:epsg": 32633, "proj:shape": [80, 60]},
            "assets": {"image": asset},
        })  # fmt: skip
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return whole, path


def landcover(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "landcover.tif") as file:
        return file.read(1)


def test_files_outside_of_the_area_are_not_opened(citycover: Callable[..., Result], tmp_path: Path) -> None:
    whole, items = write_items(tmp_path)
    box = ("--bbox", "500250,5799930,500350,5799990")  # of sheets 4 and 5; windows look around it
    assert citycover("map", whole, *box, *OPTIONS, "-o", tmp_path / "one").code == 0
    for number in (0, 1, 8, 9):
        (tmp_path / f"{number}.tif").write_bytes(b"no raster")
    result = citycover("map", items, *box, *OPTIONS, "-o", tmp_path / "many")
    assert result.code == 0, result.err
    np.testing.assert_array_equal(landcover(tmp_path / "many"), landcover(tmp_path / "one"))


def test_a_sheet_that_cannot_be_opened_is_a_hole(citycover: Callable[..., Result], tmp_path: Path) -> None:
    whole, items = write_items(tmp_path)
    assert citycover("map", whole, *OPTIONS, "-o", tmp_path / "one").code == 0
    (tmp_path / "9.tif").write_bytes(b"no raster")
    result = citycover("map", items, *OPTIONS, "-o", tmp_path / "many")
    assert result.code == 3
    holes = json.loads((tmp_path / "many/holes.geojson").read_text())["features"]
    assert len(holes) == 1 and "9.tif" in json.dumps(holes)
    found, expected = landcover(tmp_path / "many"), landcover(tmp_path / "one")
    assert (found[:, 540:] == found[0, -1]).all() and found[0, -1] not in expected
    np.testing.assert_array_equal(found[:, :476], expected[:, :476])


def test_an_item_that_says_another_place_is_refused(citycover: Callable[..., Result], tmp_path: Path) -> None:
    _, path = write_items(tmp_path)
    content = json.loads(path.read_text())
    content["features"][3]["assets"]["image"]["proj:transform"][2] += 600  # behind the last
    path.write_text(json.dumps(content))
    result = citycover("map", path, *OPTIONS, "-o", tmp_path / "out")
    assert result.code == 2 and "3.tif lies on" in result.err and "mend the item" in result.err
    assert not (tmp_path / "out" / "landcover.tif").exists()


def test_inspect_tells_what_files_are(citycover: Callable[..., Result], tmp_path: Path) -> None:
    _, path = write_items(tmp_path, 2)
    result = citycover("inspect", path, "--json")
    assert [fact["driver"] for fact in json.loads(result.out)] == ["GTiff", "GTiff"]
