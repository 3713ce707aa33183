"""Areas by class, on a map and in zones."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from mapped import on_map, patchy, write_product, write_zones
from pyproj import Transformer

from citycover.derive.areas import zonal_areas
from citycover.errors import ConfigError

CLASSES = patchy((60, 80))


@pytest.fixture
def product(tmp_path: Path) -> Path:
    confidence = np.where(CLASSES > 0, 50 * CLASSES, 0).astype(np.uint8)
    return write_product(tmp_path / "product", CLASSES, confidence)


def test_the_whole_map_is_counted(product: Path) -> None:
    table = zonal_areas(product)
    rows = list(table.rows())
    assert [row["pixels"] for row in rows] == [(k == CLASSES).sum() for k in range(1, 6)]
    assert [row["area_m2"] for row in rows] == [4 * row["pixels"] for row in rows]
    assert [row["confidence"] for row in rows] == pytest.approx([50 * k / 255 for k in range(1, 6)])
    assert sum(row["percent"] for row in rows) == pytest.approx(100)
    assert table.whole.without_class == 4 * (CLASSES == 0).sum()


def test_zones_count_shares_of_pixels(product: Path, tmp_path: Path) -> None:
    ring = shapely.Point(40.3, 30.8).buffer(21.7) - shapely.Point(38, 30).buffer(6.3)
    other = shapely.Polygon([(3.2, 8.1), (77.5, 12.4), (30.6, 55.9)])
    zones = write_zones(tmp_path / "zones.geojson", {"ring": on_map(ring), "other": on_map(other)})
    table = zonal_areas(product, zones, "name")
    assert [zone.zone for zone in table.zones] == ["ring", "other"]
    rows, cols = np.mgrid[0:60, 0:80]
    boxes = shapely.box(cols, rows, cols + 1, rows + 1)
    for found, area in zip(table.zones, (ring, other), strict=True):
        shares = shapely.area(shapely.intersection(boxes, area))
        right = [4 * shares[k == CLASSES].sum() for k in range(1, 6)]
        np.testing.assert_allclose(found.square_metres, right, rtol=1e-6)
        assert found.square_metres.sum() + found.without_class == pytest.approx(4 * area.area, rel=1e-6)


def test_zones_that_part_the_map_add_up_to_it(product: Path, tmp_path: Path) -> None:
    cells = shapely.get_parts(
        shapely.voronoi_polygons(
            shapely.MultiPoint(np.random.default_rng(3).uniform(0, 80, (7, 2))),
            extend_to=shapely.box(-9, -9, 99, 99),
        )
    )
    inside = [cell & shapely.box(0, 0, 80, 60) for cell in cells]
    zones = {f"zone {n}": on_map(cell) for n, cell in enumerate(inside) if not cell.is_empty}
    table = zonal_areas(product, write_zones(tmp_path / "zones.geojson", zones), "name")
    total = np.sum([zone.square_metres for zone in table.zones], axis=0)
    np.testing.assert_allclose(total, table.whole.square_metres, rtol=1e-9)


def test_zones_in_another_crs_are_found(product: Path, tmp_path: Path) -> None:
    zone = on_map(shapely.Point(40, 30).buffer(20))
    to = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    degrees = shapely.transform(zone, lambda xy: np.column_stack(to.transform(*xy.T)))
    here = zonal_areas(product, write_zones(tmp_path / "here.geojson", {"a": zone}), "name").zones[0]
    there = zonal_areas(product, write_zones(tmp_path / "there.geojson", {"a": degrees}, None), "name").zones[
        0
    ]
    np.testing.assert_allclose(there.square_metres, here.square_metres, rtol=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857"])
def test_areas_of_one_place_are_the_same_on_any_grid(tmp_path: Path, crs: str) -> None:
    """A band of class 1 between two parallels."""
    transform = (
        Affine(0.001, 0, 8, 0, -0.002, 60) if crs == "EPSG:4326" else Affine(150, 0, 9e5, 0, -150, 8.3e6)
    )
    product = write_product(tmp_path / "product", np.ones((40, 30), np.uint8), crs=crs, transform=transform)
    corners = [transform * corner for corner in ((0, 0), (30, 0), (30, 40), (0, 40))]
    from pyproj import Geod

    to = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    outline = shapely.segmentize(shapely.Polygon(corners), abs(transform.a))
    outline = shapely.transform(outline, lambda xy: np.column_stack(to.transform(*xy.T)))
    right = abs(Geod(ellps="WGS84").geometry_area_perimeter(outline)[0])
    assert zonal_areas(product).total == pytest.approx(right, rel=1e-6)


def test_what_lies_outside_is_said(product: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    zones = {
        "far": shapely.box(900, 900, 950, 950),
        "half": shapely.box(-40, 10, 40, 20),
        "in": shapely.box(1, 1, 5, 5),
    }
    with caplog.at_level(logging.WARNING):
        path = write_zones(tmp_path / "zones.geojson", {k: on_map(z) for k, z in zones.items()})
        table = zonal_areas(product, path, "name")
    assert [zone.zone for zone in table.zones] == ["half", "in"]
    assert "left out: 'far'" in caplog.text and "part on it: 'half'" in caplog.text
    half = table.zones[0]
    assert half.square_metres.sum() + half.without_class == pytest.approx(4 * 400)


BOX = on_map(shapely.box(10, 10, 20, 20))
BOW = on_map(shapely.Polygon([(10, 10), (20, 20), (20, 10), (10, 20)]))
REFUSED = [
    ({"a": on_map(shapely.box(900, 900, 950, 950))}, "name", "do not overlap"),
    ({"a": BOX}, "district", "no column 'district'; it has: name"),
    ({"": BOX}, "name", "1 zones without a 'name'"),
    ({"a": BOW}, "name", "are not valid .*'a'"),
    ({"a": shapely.Point(5e5, 5.8e6)}, "name", "no polygon: 'a'"),
    ({}, "name", "no column|no feature"),
]


@pytest.mark.parametrize(("zones", "by", "message"), REFUSED)
def test_zones_that_cannot_be_used_are_refused(
    product: Path, tmp_path: Path, zones: dict[str, Any], by: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        zonal_areas(product, write_zones(tmp_path / "zones.geojson", zones), by)


def test_a_name_that_occurs_twice_is_refused(product: Path, tmp_path: Path) -> None:
    path = write_zones(tmp_path / "zones.geojson", {"a": BOX, "b": BOX})
    path.write_text(path.read_text().replace('"b"', '"a"'))
    with pytest.raises(ConfigError, match=r"more than once: a \(2 times\)"):
        zonal_areas(product, path, "name")
    assert [zone.zone for zone in zonal_areas(product, path).zones] == ["1", "2"]


def test_zones_without_a_crs_are_refused(product: Path, tmp_path: Path) -> None:
    import pyogrio

    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(
            tmp_path / "zones.gpkg", shapely.to_wkb([BOX]), [np.array([1])], ["n"], geometry_type="Polygon"
        )
    with pytest.raises(ConfigError, match="does not say its CRS"):
        zonal_areas(product, tmp_path / "zones.gpkg", "n")


def test_of_several_layers_none_is_guessed(product: Path, tmp_path: Path) -> None:
    import pyogrio

    def add(layer: str, kind: str, names: list[str]) -> None:
        shapes = np.array(shapely.to_wkb([BOX] * len(names)), object)
        pyogrio.raw.write(
            tmp_path / "zones.gpkg", shapes, [np.array(names, object)], ["name"], layer=layer,
            geometry_type=kind, crs="EPSG:32633", append=(tmp_path / "zones.gpkg").exists(),
        )  # fmt: skip

    add("sketches", "Point", [])
    add("districts", "Polygon", ["West"])
    (zone,) = zonal_areas(product, tmp_path / "zones.gpkg", "name").zones
    assert zone.zone == "West"
    add("lakes", "Polygon", ["Lake"])
    with pytest.raises(ConfigError, match="2 layers of features, districts, lakes; needed is one"):
        zonal_areas(product, tmp_path / "zones.gpkg", "name")


def test_heights_of_zones_do_not_matter(product: Path, tmp_path: Path) -> None:
    flat, high = {"a": BOX}, {"a": shapely.force_3d(BOX, 7.0)}
    tables = [
        zonal_areas(product, write_zones(tmp_path / f"{n}.geojson", z), "name")
        for n, z in enumerate((flat, high))
    ]
    np.testing.assert_array_equal(tables[0].zones[0].square_metres, tables[1].zones[0].square_metres)


def test_an_assessment_gives_adjusted_areas(
    product: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shares = [0.1, 0.2, 0.3, 0.2, 0.2]
    classes = [
        {"id": k, "area_share": {"value": share, "standard_error": 0.01, "margin95": 0.0196}}
        for k, share in enumerate(shares, start=1)
    ]
    area = 4e-4 * float((CLASSES > 0).sum())
    report = {"legend": "test", "area_adjusted": {"classes": classes, "hectares": area}}
    path = tmp_path / "eval.json"
    path.write_text(json.dumps(report))
    table = zonal_areas(product, assessment=path)
    rows = list(table.rows())
    hectares = 4e-4 * (CLASSES > 0).sum()
    assert [row["adjusted_ha"] for row in rows] == pytest.approx([s * hectares for s in shares])
    assert [row["margin95_ha"] for row in rows] == pytest.approx([0.0196 * hectares] * 5)
    assert not caplog.records
    elsewhere = {"area_adjusted": {"classes": classes, "hectares": 1.02 * area}}
    path.write_text(json.dumps(report | elsewhere))
    zonal_areas(product, assessment=path)
    assert "those of another extent" in caplog.text
    path.write_text(json.dumps(report | {"legend": "city"}))
    with pytest.raises(ConfigError, match="'city', the map in 'test'"):
        zonal_areas(product, assessment=path)
    path.write_text(json.dumps(report | {"area_adjusted": None}))
    with pytest.raises(ConfigError, match="stratified sample"):
        zonal_areas(product, assessment=path)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="no report"):
        zonal_areas(product, assessment=path)
