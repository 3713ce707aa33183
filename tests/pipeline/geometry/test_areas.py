"""Square metres of pixels against geodesic polygons."""

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from citycover.errors import ConfigError
from citycover.geometry.areas import row_areas

CASES = [
    ("EPSG:4326", Affine(0.01, 0, 8, 0, -0.01, 70)),
    ("EPSG:4326", Affine(0.01, 0, -60, 0, -0.01, 0.1)),
    ("EPSG:4258", Affine(0.001, 0, 8, 0, -0.001, 48)),
    ("EPSG:3857", Affine(100, 0, 1e6, 0, -100, 8.4e6)),
    ("EPSG:3857", Affine(30, 0, -7e6, 0, -30, -3e6)),
    ("EPSG:3395", Affine(30, 0, 1e6, 0, -30, 6e6)),
    ("EPSG:3857+5773", Affine(100, 0, 1e6, 0, -100, 8.4e6)),
    ("+proj=merc +datum=WGS84 +towgs84=0,0,0", Affine(30, 0, 1e6, 0, -30, 6e6)),
    ("EPSG:4087", Affine(30, 0, 1e6, 0, -30, 6e6)),
]


@pytest.mark.parametrize(("crs", "transform"), CASES)
def test_areas_are_geodesic(crs: str, transform: Affine) -> None:
    grid = GeoBox((21, 3), transform, CRS.from_user_input(crs).to_wkt())
    areas = row_areas(grid)
    own = CRS.from_user_input(crs).geodetic_crs
    to = Transformer.from_crs(crs, own, always_xy=True)
    geod = Geod(a=own.ellipsoid.semi_major_metre, b=own.ellipsoid.semi_minor_metre)
    for row in (0, 10, 20):
        corners = [transform * corner for corner in ((1, row), (2, row), (2, row + 1), (1, row + 1))]
        outline = shapely.segmentize(shapely.Polygon(corners), abs(transform.a) / 50)
        degrees = shapely.transform(outline, lambda xy: np.column_stack(to.transform(*xy.T)))
        assert areas[row] == pytest.approx(abs(geod.geometry_area_perimeter(degrees)[0]), rel=1e-6)


def test_projected_grids_are_taken_at_their_word() -> None:
    assert row_areas(GeoBox((2, 2), Affine(3, 0, 5e5, 0, -2, 5e6), "EPSG:32633")).tolist() == [6, 6]
    feet = row_areas(GeoBox((1, 1), Affine(1, 0, 6e6, 0, -1, 2e6), "EPSG:2263"))
    assert feet[0] == pytest.approx(0.3048006096**2)


def test_without_a_crs_there_is_no_area() -> None:
    with pytest.raises(ConfigError, match="no CRS"):
        row_areas(GeoBox((2, 2), Affine(3, 0, 5e5, 0, -2, 5e6), None))
