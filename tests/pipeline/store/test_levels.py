"""Overviews and statistics of blocks: those of the whole raster, by whatever blocks it was made."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover.files.store import PosixStore
from citycover.store.levels import block_levels, halve_block
from citycover.store.pyramid import HALVE
from citycover.store.shard import ArraySpec, Layout
from citycover.store.statistics import tile_statistics
from citycover.store.store import WorkingStore

SPECS = (
    ArraySpec("classes", 255, 0, "mode", (1, 2, 5)),
    ArraySpec("confidence", 0, 0, "average"),
    ArraySpec("probabilities", 255, 2, "nearest"),
)


def half(pixels: NDArray[np.uint8], spec: ArraySpec) -> NDArray[np.uint8]:
    """The next level of a whole (y, x) raster."""
    padded = np.pad(pixels, [(0, n % 2) for n in pixels.shape], constant_values=spec.fill)
    return HALVE[spec.overviews](padded, spec.fill)


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_blocks_make_the_overviews_and_statistics_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    side, cells = st.integers(1, 90), st.integers(1, 4)
    cell = data.draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))
    block = cell[0] * data.draw(cells), cell[1] * data.draw(cells)
    layout = Layout(data.draw(st.tuples(side, side)), block, cell)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = np.array([0, 1, 2, 5, 255], np.uint8)
    whole = {spec.name: rng.choice(values, spec.shape(layout.shape)) for spec in SPECS}
    with WorkingStore.create(PosixStore(folder), layout, SPECS, {}) as store:
        for index in itertools.product(*map(range, layout.blocks)):
            part = store.layout.block_window(index).slices
            store.write_block(index, {name: pixels[(..., *part)] for name, pixels in whole.items()})
        assert store.drop_damaged()[1] == ()
        group, blocks = zarr.open_group(folder / "store.zarr", mode="r"), store.finished().values()
        for spec in SPECS:
            for channel, plane in enumerate(whole[spec.name].reshape(spec.planes, *layout.shape)):
                raster = store.raster(spec.name, channel, blocks)
                assert raster.statistics == tile_statistics(plane, spec.fill, spec.ids)
                for number, level in enumerate(raster.levels):
                    made = group[f"{number}/{spec.name}" if number else spec.name][:]
                    np.testing.assert_array_equal(made.reshape(spec.planes, *plane.shape)[channel], plane)
                    np.testing.assert_array_equal(level.read(store.levels[number].window), plane)
                    plane = half(plane, spec)  # noqa: PLW2901  (level by level)


@pytest.mark.parametrize(
    ("shape", "block", "levels"),
    [
        ((92_736, 92_736), (2048, 8192), 3),
        ((92_736, 92_736), (2048, 92_672 + 512), 3),
        ((3000, 3000), (1536, 3072), 1),
        ((3000, 3000), (2048, 3072), 3),
        ((2048, 8192), (2048, 8192), 5),
        ((500, 500), (512, 512), 1),
    ],
)
def test_levels_end_where_blocks_would_meet_in_a_tile(
    shape: tuple[int, int], block: tuple[int, int], levels: int
) -> None:
    made = block_levels(Layout(shape, block))
    assert len(made) == levels
    assert {one.blocks for one in made} == {made[0].blocks}


def test_a_half_votes_over_valid_pixels_alone() -> None:
    spec = ArraySpec("confidence", 0, 0, "average")
    with ThreadPoolExecutor(1) as pool:
        found = halve_block(np.array([[10, 0, 7], [20, 0, 0], [0, 0, 0]], np.uint8), spec, pool)
    assert found.tolist() == [[15, 7], [0, 0]]
