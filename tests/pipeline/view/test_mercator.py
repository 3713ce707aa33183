"""The grid of web maps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from citycover.errors import ConfigError
from citycover.geometry.areas import row_areas
from citycover.view.mercator import TILE, Tile, native_level, window_grid


@given(st.data())
def test_four_tiles_of_the_next_level_are_one(data: st.DataObject) -> None:
    level = data.draw(st.integers(0, 23))
    row, col = (data.draw(st.integers(0, 2**level - 1)) for _ in "yx")
    whole = Tile(level, row, col).grid
    parts = [Tile(level + 1, 2 * row + y, 2 * col + x).grid for y in (0, 1) for x in (0, 1)]
    assert [part.transform.a * 2 for part in parts] == pytest.approx([whole.transform.a] * 4)
    corners = np.array([tuple(part.boundingbox) for part in parts])
    found = [*corners.min(0)[:2], *corners.max(0)[2:]]
    np.testing.assert_allclose(found, tuple(whole.boundingbox), rtol=0, atol=1e-6)


def test_the_first_tile_is_the_world() -> None:
    to = Transformer.from_crs("EPSG:3857", "OGC:CRS84", always_xy=True)
    west, south, east, north = Tile(0, 0, 0).grid.boundingbox
    assert to.transform([west, east], [south, north])[0] == pytest.approx((-180, 180))
    assert to.transform([west, east], [south, north])[1] == pytest.approx((-85.0511288, 85.0511288))


@pytest.mark.parametrize(
    ("level", "row", "col"), [(-1, 0, 0), (25, 0, 0), (3, 8, 0), (3, 0, -1), (10**9, 0, 0)]
)
def test_what_is_no_tile_is_refused(level: int, row: int, col: int) -> None:
    with pytest.raises(ConfigError, match="there is no tile"):
        Tile(level, row, col)


@given(st.floats(-179, 178), st.floats(-84, 83), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_window_has_the_area_that_it_has_on_the_ellipsoid(w: float, s: float, dx: float, dy: float) -> None:
    grid = window_grid((w, s, w + dx, s + dy))
    assert max(grid.shape) == 1024
    height, width = grid.shape
    # Rounded to whole pixels, so compared with the strip of degrees that the pixels do cover.
    to = Transformer.from_crs("EPSG:3857", "OGC:CRS84", always_xy=True)
    west, south, east, north = grid.boundingbox
    lon, lat = to.transform([west, east], [south, north])
    degrees = GeoBox.from_bbox(
        (lon[0], lat[0], lon[1], lat[1]), "EPSG:4326", shape=(height, width), tight=True
    )
    assert row_areas(grid).sum() == pytest.approx(row_areas(degrees).sum(), rel=1e-6)
    assert abs(width / height - dx / dy * math.cos(math.radians(s + dy / 2))) / (dx / dy) < 0.1 + 2 / min(
        grid.shape
    )


@pytest.mark.parametrize("bounds", [(1, 2, 1, 3), (3, 2, 1, 3), (0, 86, 1, 89), (-999, 0, 999, 1)])
def test_a_window_of_nothing_is_refused(bounds: tuple[float, float, float, float]) -> None:
    with pytest.raises(ConfigError, match="is no window"):
        window_grid(bounds)


@pytest.mark.parametrize("metres", [0.05, 0.6, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("latitude", [0.5, 52.0])
def test_the_native_level_is_the_first_as_fine_as_the_map(metres: float, latitude: float) -> None:
    to = Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True)
    x, y = to.transform(15, latitude)
    grid = GeoBox.from_bbox((x, y, x + 1000 * metres, y + 1000 * metres), "EPSG:32633", resolution=metres)
    level = native_level(grid, latitude)
    side = [40_075_016.7 * math.cos(math.radians(latitude)) / 2**k / TILE for k in (level - 1, level)]
    assert side[1] <= metres * 1.01 and side[0] > metres * 0.99
