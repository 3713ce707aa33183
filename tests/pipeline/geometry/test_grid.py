"""Grids beside each other."""

from __future__ import annotations

from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from citycover.geometry.grid import coarser_grid, nested_ratio

SIDES = st.integers(1, 500)


@given(SIDES, SIDES, st.integers(1, 12))
def test_a_coarser_grid_nests(height: int, width: int, ratio: int) -> None:
    fine = GeoBox((height, width), Affine(10, 0, 600_000, 0, -10, 5_800_000), "EPSG:32633")
    assert nested_ratio(fine, coarser_grid(fine, ratio)) == ratio
