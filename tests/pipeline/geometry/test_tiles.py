"""Tiles of a fixed grid: every pixel is in one, whatever lattice it is of."""

from __future__ import annotations

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from citycover.errors import ConfigError
from citycover.geometry.tiles import tiles_in
from citycover.geometry.window import Window

lattices = st.builds(
    lambda x, y, side: GeoBox((1, 1), Affine(side, 0, x, 0, -side, y), "EPSG:32633"),
    st.integers(-9000, 9000),
    st.integers(-9000, 9000),
    st.sampled_from([0.5, 10.0, 30.0]),
)


@given(
    lattices,
    st.builds(Window, *2 * (st.integers(-500, 500),), *2 * (st.integers(1, 300),)),
    st.integers(7, 400),
)
def test_the_tiles_of_a_window_hold_each_of_its_pixels_once(
    lattice: GeoBox, window: Window, size: int
) -> None:
    tiles = list(tiles_in(window, size, lattice))
    shared = [part for tile in tiles if (part := tile.window(lattice).clip(window))]
    assert len(shared) == len(tiles) == len({tile.name for tile in tiles})
    assert sum(part.pixels for part in shared) == window.pixels


@given(lattices, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 100))
def test_a_tile_lies_where_it_is_counted_to(lattice: GeoBox, column: int, row: int, size: int) -> None:
    (tile,) = tiles_in(Window(-row * size, column * size, 1, 1), size, lattice)
    corner = tile.window(lattice)
    x, y = lattice.transform * (corner.col, corner.row_end)  # lower left
    side = lattice.transform.a
    assert abs(x - tile.column * size * side) <= side / 2 and abs(y - tile.row * size * side) <= side / 2


def test_a_lattice_that_is_turned_or_upside_down_is_refused() -> None:
    for transform in (Affine(1, 0, 0, 0, 1, 0), Affine.rotation(20) * Affine(1, 0, 0, 0, -1, 0)):
        with pytest.raises(ConfigError, match="rows run to the south"):
            list(tiles_in(Window(0, 0, 1, 1), 64, GeoBox((1, 1), transform, "EPSG:32633")))
