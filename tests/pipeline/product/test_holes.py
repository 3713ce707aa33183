"""Parts that could not be read, as places on the Earth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from citycover.geometry.window import Window
from citycover.product.holes import joined, write_holes
from citycover.read.reader import Hole

UTM = GeoBox((600, 800), Affine(10, 0, 5e5, 0, -10, 5.8e6), "EPSG:32633")


def hole(row: int, col: int, height: int, width: int, reason: str = "lost", path: str = "a.tif") -> Hole:
    return Hole(Window(row, col, height, width), path, reason)


def written(path: Path, holes: list[Hole], grid: GeoBox) -> list[dict]:
    write_holes(path / "holes.geojson", holes, grid)
    content = json.loads((path / "holes.geojson").read_text())
    assert content["type"] == "FeatureCollection" and "crs" not in content  # RFC 7946: WGS84, always
    assert all(set(one) >= {"type", "geometry", "properties"} for one in content["features"])
    return content["features"]


def test_holes_lie_where_the_pixels_lie(tmp_path: Path) -> None:
    (feature,) = written(tmp_path, [hole(100, 200, 50, 80)], UTM)
    back = Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True)
    outline = shapely.geometry.shape(feature["geometry"])
    assert outline.is_valid and outline.exterior.is_ccw  # the right hand rule
    there = shapely.transform(outline, lambda xy: np.column_stack(back.transform(*xy.T)))
    wanted = shapely.box(5e5 + 2000, 5.8e6 - 1500, 5e5 + 2800, 5.8e6 - 1000)
    assert there.symmetric_difference(wanted).area < 1e-3 * wanted.area
    np.testing.assert_allclose(feature["bbox"], outline.bounds)
    assert feature["properties"] == {
        "path": "a.tif", "reason": "lost", "row": 100, "col": 200, "height": 50, "width": 80,
    }  # fmt: skip


def test_strips_of_one_cause_are_one_hole(tmp_path: Path) -> None:
    strips = [hole(30, 5, 10, 9), hole(10, 5, 10, 9), hole(20, 5, 10, 9), hole(15, 5, 10, 9)]
    others = [
        hole(10, 40, 10, 9),
        hole(40, 5, 2, 9, "another"),
        hole(90, 5, 3, 9),
        hole(40, 5, 2, 9, path="b"),
    ]
    assert set(joined([*strips, *others])) == {hole(10, 5, 30, 9), *others}
    assert len(written(tmp_path, [*strips, *others], UTM)) == 5


def test_what_reaches_beyond_the_scene_is_cut_and_what_lies_beyond_is_left_out(tmp_path: Path) -> None:
    """Coarse pixels may stick out."""
    (feature,) = written(tmp_path, [hole(590, 790, 20, 30), hole(600, 0, 5, 5)], UTM)
    assert {name: feature["properties"][name] for name in ("height", "width")} == {"height": 10, "width": 10}


def test_at_180_degrees_a_hole_is_two_areas(tmp_path: Path) -> None:
    grid = GeoBox((20, 40), Affine(1, 0, 160, 0, -1, 10), "EPSG:4326")
    (feature,) = written(tmp_path, [hole(0, 10, 5, 20)], grid)
    assert feature["geometry"]["type"] == "MultiPolygon"
    assert feature["bbox"] == [170, 5, -170, 10]


@pytest.mark.parametrize("crs", ['LOCAL_CS["site",UNIT["metre",1]]'])
def test_where_there_is_no_place_on_the_earth_rows_and_columns_say_it(tmp_path: Path, crs: str) -> None:
    (feature,) = written(tmp_path, [hole(1, 2, 3, 4)], GeoBox((9, 9), Affine(1, 0, 0, 0, -1, 9), crs))
    assert feature["geometry"] is None and "bbox" not in feature
    assert feature["properties"]["row"] == 1
