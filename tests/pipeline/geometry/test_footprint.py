"""Where grids lie on the Earth: outlines and bounds in degrees, for any CRS."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.warp import transform_bounds

from citycover.geometry.footprint import bbox_of, degrees_of, degrees_text, footprint

MERCATOR = 20037508.342789244
SITE = 'LOCAL_CS["site grid",UNIT["metre",1]]'
MOON = "IAU_2015:30100"


def grid_over(crs: str, west: float, south: float, east: float, north: float) -> GeoBox:
    return GeoBox((50, 60), Affine((east - west) / 60, 0, west, 0, (south - north) / 50, north), crs)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (grid_over("EPSG:4326", -180, -90, 180, 90), (-180, -90, 180, 90)),
        (grid_over("EPSG:4326", 0, -90, 360, 90), (-180, -90, 180, 90)),
        (grid_over("EPSG:4326", 0, -90, 180, 90), (0, -90, 180, 90)),
        (grid_over("EPSG:4326", 170, -20, 200, 10), (170, -20, -160, 10)),
        (grid_over("EPSG:4326", 370, 0, 380, 10), (10, 0, 20, 10)),
        (grid_over("EPSG:4326", 0, 80, 20, 95), (0, 80, 20, 90)),
        (grid_over("EPSG:3857", -MERCATOR, -MERCATOR, MERCATOR, MERCATOR), (-180, -85.0511, 180, 85.0511)),
        (grid_over("EPSG:3857", -1.2 * MERCATOR, 0, MERCATOR, 1), (-180, 0, 180, 0)),
        (grid_over("EPSG:3031", -3e6, -3e6, 3e6, 3e6), (-180, -90, 180, -52.3171)),
        (grid_over("EPSG:3413", -3e6, -3e6, 3e6, 3e6), (-180, 52.2117, 180, 90)),
        (grid_over("+proj=laea +lat_0=90", -9e6, -9e6, 9e6, 9e6), (-180, -84.634, 180, 90)),
    ],
)
def test_worlds_hemispheres_poles_and_the_date_line(grid: GeoBox, expected: tuple[float, ...]) -> None:
    outline = footprint(grid)
    assert outline is not None and outline.is_valid
    assert all(part.exterior.is_ccw for part in shapely.get_parts(outline).tolist())
    assert degrees_of(grid) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("crs", [SITE, MOON])
def test_a_local_grid_and_another_body_are_no_place_on_the_earth(crs: str) -> None:
    grid = grid_over(crs, 0, 0, 60, 50)
    assert footprint(grid) is None and degrees_of(grid) is None
    assert degrees_text(grid).startswith("0,0,60,50 (west,south,east,north in ")


def test_a_disk_seen_from_space_is_boxed() -> None:
    disk = grid_over("+proj=geos +h=35786023 +lon_0=-75 +sweep=x", -5.6e6, -5.6e6, 5.6e6, 5.6e6)
    west, south, east, north = degrees_of(disk) or (0, 0, 0, 0)
    assert -160 < west < -150 and 0 < east < 10 and south == pytest.approx(-north) and north > 65


@given(st.integers(1, 60), st.floats(1e5, 8e5), st.floats(1e6, 9e6), st.sampled_from([326, 327]))
def test_points_of_a_grid_lie_in_its_footprint(zone: int, x: float, y: float, side: int) -> None:
    grid = grid_over(f"EPSG:{side}{zone:02}", x, y, x + 60_000, y + 50_000)
    outline = footprint(grid)
    assert outline is not None and outline.is_valid
    inside = np.random.default_rng(0).uniform(0.01, 0.99, (20, 2)) * (60_000, 50_000) + (x, y)
    assert grid.crs is not None
    lon, lat = Transformer.from_crs(grid.crs.proj, "OGC:CRS84", always_xy=True).transform(*inside.T)
    assert shapely.contains_xy(outline, lon, lat).all()
    west, south, east, north = bbox_of(outline)
    assert (((lon - west) % 360 <= (east - west) % 360) & (lat >= south) & (lat <= north)).all()


@pytest.mark.parametrize(
    "grid",
    [
        grid_over("EPSG:32633", 4e5, 5e6, 5e5, 6e6),
        grid_over("EPSG:3035", 4e6, 2e6, 4.1e6, 2.1e6),
        grid_over("EPSG:3857", 4e6, 2e6, 4.1e6, 2.1e6),
    ],
)
def test_bounds_are_those_that_gdal_gives(grid: GeoBox) -> None:
    assert grid.crs is not None
    expected = transform_bounds(grid.crs.to_wkt(), "EPSG:4326", *grid.boundingbox)
    assert degrees_of(grid) == pytest.approx(expected, abs=1e-4)
