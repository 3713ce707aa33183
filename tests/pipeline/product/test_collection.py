"""Collections: valid against the schemas of STAC and its extensions, without a network."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from items import BAND, CONTENT, LEGEND, STATISTICS
from mapped import write_product
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from citycover.errors import ConfigError
from citycover.product.collection import COLLECTION, collect
from citycover.product.stac import ItemContent, ProductFile, write_item


def put(folder: Path, **changes: Any) -> Path:
    """A product with an item."""
    write_product(folder, np.ones((2, 3), np.uint8), legend=LEGEND)
    size = (folder / "landcover.tif").stat().st_size
    files = (
        ProductFile("landcover.tif", "Land cover", size, "cd" * 32, (BAND,), (STATISTICS,)),
        ProductFile("run.json", "Provenance", 2, "01" * 32),
    )
    content: ItemContent = replace(CONTENT, **{"id": folder.name, "files": files} | changes)
    write_item(folder / "item.json", content)
    return folder


def test_products_below_a_folder_are_a_valid_collection(
    tmp_path: Path, validator: JsonSchemaSTACValidator
) -> None:
    first = put(tmp_path / "maps/2024/west", scene_time="2024-07-01T10:00:00Z")
    second = put(tmp_path / "maps/east")
    (tmp_path / "maps/2024/west/landcover.zarr").mkdir()
    done = collect(tmp_path / "maps", title="Two maps", licence="CC-BY-4.0")
    assert done.products == (first, second)
    collection = pystac.Collection.from_file(str(done.path))
    assert len(collection.validate(validator)) == 1 + len(collection.stac_extensions) == 3
    assert [item.id for item in collection.get_items()] == ["west", "east"]
    for item in collection.get_items():
        assert Path(item.assets["landcover"].get_absolute_href() or "").is_file()
        assert len(item.validate(validator)) == 1 + len(item.stac_extensions)
    (times,) = collection.extent.temporal.to_dict()["interval"]
    assert times == ["2024-07-01T10:00:00Z", "2025-07-01T10:20:30Z"]
    assert collection.extent.spatial.bboxes == [collection.get_item("west").bbox]  # type: ignore[union-attr]
    said = json.loads(done.path.read_text())
    assert (said["license"], said["title"], said["summaries"]["proj:code"]) == (
        "CC-BY-4.0", "Two maps", ["EPSG:32633"],
    )  # fmt: skip
    classes = said["item_assets"]["landcover"]["classification:classes"]
    assert [c["value"] for c in classes] == [1, 2, 255] and "count" not in classes[0]
    (tmp_path / "maps").rename(tmp_path / "moved")
    moved = pystac.Collection.from_file(str(tmp_path / "moved" / COLLECTION))
    assert [item.id for item in moved.get_items()] == ["west", "east"]


def test_a_collection_is_written_anew_and_nobody_elses_is_replaced(tmp_path: Path) -> None:
    put(tmp_path / "a")
    collect(tmp_path)
    put(tmp_path / "b")
    assert len(collect(tmp_path).products) == 2
    (tmp_path / COLLECTION).write_text('{"type": "Collection"}')
    with pytest.raises(ConfigError, match="not of citycover"):
        collect(tmp_path)


def test_what_is_no_folder_of_whole_products_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no finished product"):
        collect(tmp_path / "nothing")
    product = put(tmp_path / "a")
    with pytest.raises(ConfigError, match="holds no finished product"):
        collect(product)
    (product / "landcover.tif").unlink()
    with pytest.raises(ConfigError, match=r"lacks landcover\.tif"):
        collect(tmp_path)


def test_two_maps_under_one_id_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        put(tmp_path / name, id="image")
    with caplog.at_level(logging.WARNING):
        collect(tmp_path)
    assert "have one id, image" in caplog.text


@pytest.mark.parametrize(
    ("boxes", "whole"),
    [
        ([(13.0, 52.0, 14.0, 53.0), (179.5, -17.0, -179.5, -16.0)], (13.0, -17.0, -179.5, 53.0)),
        ([(179.5, -17.0, -179.5, -16.0), (-176.0, -18.0, -175.0, -17.0)], (179.5, -18.0, -175.0, -16.0)),
        ([(13.0, 52.0, 14.0, 53.0), (-176.0, -18.0, -175.0, -17.0)], (-176.0, -18.0, 14.0, 53.0)),
    ],
)
def test_the_extent_holds_maps_that_cross_180_degrees(
    tmp_path: Path, boxes: list[tuple[float, ...]], whole: tuple[float, ...]
) -> None:
    for name, box in zip("ab", boxes, strict=True):
        path = put(tmp_path / name) / "item.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"bbox": box}))
    said = json.loads(collect(tmp_path).path.read_text())
    assert tuple(said["extent"]["spatial"]["bbox"][0]) == whole


def test_a_product_itself_is_not_said_to_be_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="in a folder of its own"):
        collect(put(tmp_path / "a"))
    assert not caplog.records
