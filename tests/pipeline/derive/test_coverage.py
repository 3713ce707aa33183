"""Exact shares of pixels against many small samples, and against intersections."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from citycover.derive.coverage import Edges, covered_shares
from citycover.geometry.window import Window

HEIGHT, WIDTH = 9, 11


@st.composite
def areas(draw: st.DrawFn) -> shapely.Geometry:
    """Valid polygons, with or without holes, partly outside, with corners on the grid and off it."""
    number = st.one_of(st.integers(-4, 15), st.floats(-4, 15))
    rings = st.lists(st.tuples(number, number), min_size=3, max_size=12)
    area, hole = (shapely.make_valid(shapely.Polygon(draw(rings))) for _ in range(2))
    parts = shapely.get_parts(shapely.difference(area, hole))
    polygons = [part for part in parts if part.geom_type == "Polygon" and part.area > 0]
    return shapely.MultiPolygon(polygons or [shapely.box(1, 1, 2.5, 2.5)])


@given(areas(), st.integers(0, 3), st.integers(0, 3))
def test_shares_are_those_of_intersections(area: shapely.Geometry, row: int, col: int) -> None:
    if not shapely.is_valid(area):
        return
    window = Window(row, col, HEIGHT - row, WIDTH - col)
    rows, cols = np.mgrid[row:HEIGHT, col:WIDTH]
    pixels = shapely.box(cols, rows, cols + 1, rows + 1)
    right = shapely.area(shapely.intersection(pixels, area))
    np.testing.assert_allclose(covered_shares(Edges.of(area), window), right, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_near_those_of_20_x_20_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(14)) * 2 * np.pi
    radius = rng.uniform(1.5, 4.4, 14)
    ring = np.stack([5.3 + radius * np.cos(angle), 4.6 + radius * np.sin(angle)], -1)
    area = shapely.Polygon(ring, [shapely.box(5.1, 4.2, 5.9, 5.05).exterior.coords])
    assert shapely.is_valid(area)
    y, x = (np.mgrid[0 : 20 * HEIGHT, 0 : 20 * WIDTH] + 0.5) / 20
    inside = shapely.contains_xy(area, x, y).reshape(HEIGHT, 20, WIDTH, 20).mean((1, 3))
    shares = covered_shares(Edges.of(area), Window(0, 0, HEIGHT, WIDTH))
    assert np.abs(shares - inside).max() < 0.05
    assert shares.sum() == pytest.approx(area.area)
