"""Items: valid against the schemas of STAC and its extensions, without a network."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely
from affine import Affine
from items import BAND, CONTENT, GRID
from odc.geo.geobox import GeoBox
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from citycover.geometry.footprint import footprint
from citycover.product.cog import write_cog
from citycover.product.folder import check_folder
from citycover.product.stac import (
    describe_cog,
    describe_file,
    make_item,
    write_item,
)
from citycover.product.tiles import ArraySource
from citycover.store.statistics import Statistics


def validate(item: pystac.Item, validator: JsonSchemaSTACValidator) -> dict[str, Any]:
    assert len(item.validate(validator)) == 1 + len(item.stac_extensions)
    return item.to_dict()


def test_a_product_is_a_valid_item_that_says_everything(validator: JsonSchemaSTACValidator) -> None:
    data = validate(make_item(CONTENT), validator)
    properties = data["properties"]
    assert properties["datetime"] == "2025-07-01T10:20:30Z"
    assert (properties["proj:code"], properties["proj:shape"]) == ("EPSG:32633", [30, 40])
    assert properties["proj:bbox"] == [500_000, 5_799_940, 500_080, 5_800_000]
    assert properties["proj:transform"] == [2, 0, 500_000, 0, -2, 5_800_000]
    assert properties["citycover:model"]["kind"] == "built-in colour rules"
    landcover = data["assets"]["landcover"]
    assert landcover["file:checksum"] == "1220" + "cd" * 32
    water, wood, nothing = landcover["classification:classes"]
    assert (water["name"], water["color_hint"], water["percentage"]) == ("water-ice", "0000FF", 25.0)
    assert (wood["name"], wood["title"], wood["count"]) == ("class-2", "森", 750)
    assert (nothing["value"], nothing["nodata"]) == (255, True)
    confidence = data["assets"]["confidence"]["raster:bands"][0]
    assert confidence["statistics"]["mean"] == pytest.approx(5 / 255)
    links = [(link["rel"], link["href"]) for link in data["links"]]
    assert ("derived_from", "/data/scene.tif") in links
    assert data["links"][-1]["mlm:name"] == "spectral-rgb"


def test_without_a_time_of_the_scene_the_time_of_processing_stands_in(
    validator: JsonSchemaSTACValidator,
) -> None:
    for unknown in (None, "last summer"):
        data = validate(make_item(replace(CONTENT, scene_time=unknown)), validator)
        assert data["properties"]["datetime"] == "2026-05-04T03:02:01Z"
        assert data["properties"]["citycover:datetime_source"] == "processing"


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "+proj=laea +lat_0=52 +lon_0=13 +units=m"])
def test_any_crs_gives_a_valid_item(validator: JsonSchemaSTACValidator, crs: str) -> None:
    step = 0.001 if crs == "EPSG:4326" else 100
    grid = GeoBox((30, 40), Affine(step, 0, 0, 0, step, 0), crs)
    data = validate(make_item(replace(CONTENT, grid=grid)), validator)
    assert (data["properties"]["proj:code"] is None) == crs.startswith("+proj")


@pytest.mark.parametrize("crs", ['LOCAL_CS["site grid",UNIT["metre",1]]', "IAU_2015:30100"])
def test_a_grid_that_is_no_place_on_the_earth_gives_a_valid_item(
    validator: JsonSchemaSTACValidator, crs: str
) -> None:
    grid = GeoBox((30, 40), Affine(2, 0, 1000, 0, -2, 2000), crs)
    data = validate(make_item(replace(CONTENT, grid=grid)), validator)
    assert data["geometry"] is None and "bbox" not in data


def test_a_map_of_the_world_gives_a_valid_item(validator: JsonSchemaSTACValidator) -> None:
    grid = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert validate(make_item(replace(CONTENT, grid=grid)), validator)["bbox"] == [-180, -90, 180, 90]


def test_a_raster_without_a_valid_pixel_gives_a_valid_item(validator: JsonSchemaSTACValidator) -> None:
    files = tuple(replace(f, statistics=(Statistics(9, counts={1: 0, 2: 0}),)) for f in CONTENT.files[:2])
    validate(make_item(replace(CONTENT, files=files)), validator)


def test_the_outline_follows_curved_edges_and_is_cut_at_the_antimeridian(
    validator: JsonSchemaSTACValidator,
) -> None:
    outline = footprint(GRID)
    assert isinstance(outline, shapely.Polygon)
    assert outline.exterior.is_ccw
    assert outline.contains(shapely.Point(15.0005, 52.3500))
    fiji = GeoBox((100, 100), Affine(2000, 0, 800_000, 0, -2000, 8_000_000), "EPSG:32701")
    west_side = GeoBox((100, 100), Affine(1000, 0, 150_000, 0, -1000, 8_000_000), "EPSG:32701")
    assert isinstance(footprint(fiji), shapely.Polygon)
    cut = footprint(west_side)
    assert isinstance(cut, shapely.MultiPolygon)
    west, _, east, _ = make_item(replace(CONTENT, grid=west_side)).bbox or []
    assert west > 0 > east
    validate(make_item(replace(CONTENT, grid=west_side)), validator)


def test_written_files_are_described_as_they_are(tmp_path: Path, validator: JsonSchemaSTACValidator) -> None:
    path = tmp_path / "landcover.tif"
    info = write_cog(path, [ArraySource(np.full((30, 40), 2, np.uint8))], GRID, [BAND])
    (tmp_path / "run.json").write_text("{}")
    files = (
        describe_cog(path, [BAND], info, "Land cover"),
        describe_file(tmp_path / "run.json"),
        describe_file(tmp_path),
    )
    write_item(tmp_path / "item.json", replace(CONTENT, files=files))
    item = pystac.Item.from_file(str(tmp_path / "item.json"))
    assert item.assets["landcover"].extra_fields["file:size"] == path.stat().st_size
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert item.assets["landcover"].extra_fields["file:checksum"] == "1220" + digest
    assert len(item.validate(validator)) == 6
    check_folder(tmp_path, overwrite=True)  # the item is what marks the folder as ours


def test_an_item_must_name_its_maker() -> None:
    with pytest.raises(ValueError, match="citycover"):
        make_item(replace(CONTENT, software={}))
