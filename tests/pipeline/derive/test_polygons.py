"""Polygons and patches of a map do not know of strips."""

from collections.abc import Iterator

import numpy as np
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.derive.polygons import Patches, polygonise
from citycover.derive.sieve import sieved_strips, survey
from citycover.derive.source import Strip
from citycover.geometry.window import Window

Ranks = NDArray[np.int16]


@st.composite
def rank_rasters(draw: st.DrawFn) -> Ranks:
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    return draw(arrays(np.int16, shape, elements=st.integers(NO_CLASS, 2)))


def cut(ranks: Ranks, rows: int, confidence: NDArray[np.uint8] | None = None) -> Iterator[Strip]:
    for row in range(0, len(ranks), rows):
        part = ranks[row : row + rows]
        sure = None if confidence is None else confidence[row : row + rows]
        yield Strip(Window(row, 0, len(part), ranks.shape[1]), part, sure)


def drawn(ranks: Ranks, rows: int, confidence: NDArray[np.uint8] | None = None) -> Patches:
    batches = list(polygonise(cut(ranks, rows, confidence), np.full(len(ranks), 7, np.int64)))
    none = Patches(np.zeros(0, object), np.zeros(0, np.int16), np.zeros((0, 3), np.int64))
    return Patches.concatenate([none, *batches])


@given(rank_rasters(), st.integers(1, 14))
def test_polygons_burnt_again_are_the_map(ranks: Ranks, rows: int) -> None:
    found = drawn(ranks, rows)
    assert shapely.is_valid(found.outlines.astype(object)).all()
    burnt = np.full(ranks.shape, NO_CLASS, np.int16)
    if len(found):
        shapes = zip(found.outlines, found.ranks.tolist(), strict=True)
        burnt = rasterio.features.rasterize(shapes, out_shape=ranks.shape, fill=NO_CLASS, dtype="int16")
    np.testing.assert_array_equal(burnt, ranks)
    assert shapely.area(found.outlines).sum() == (ranks != NO_CLASS).sum()


@given(rank_rasters(), st.integers(1, 14))
def test_polygons_are_those_of_one_strip(ranks: Ranks, rows: int) -> None:
    one, many = drawn(ranks, len(ranks)), drawn(ranks, rows)
    assert sorted(one.ranks) == sorted(many.ranks)
    whole = {(shapely.normalize(g).wkt, r) for g, r in zip(one.outlines, one.ranks.tolist(), strict=True)}
    for outline, rank in zip(many.outlines, many.ranks.tolist(), strict=True):
        same = [w for w, r in whole if r == rank and shapely.equals(shapely.from_wkt(w), outline)]
        assert len(same) == 1
        # No corner is left where strips met.
        assert len(shapely.get_coordinates(outline)) == len(
            shapely.get_coordinates(shapely.from_wkt(same[0]))
        )


@given(st.data(), rank_rasters(), st.integers(1, 14))
def test_sums_are_those_of_the_pixels(data: st.DataObject, ranks: Ranks, rows: int) -> None:
    confidence = data.draw(arrays(np.uint8, ranks.shape))
    found = drawn(ranks, rows, confidence)
    for rank in range(3):
        own = found.sums[found.ranks == rank].sum(0)
        here = ranks == rank
        assert own.tolist() == [7 * here.sum(), (confidence[here] > 0).sum(), confidence[here].sum(dtype=int)]


def sieved(ranks: Ranks, rows: int, least: int) -> Ranks:
    """Whole map after the sieve."""
    strips = sieved_strips(lambda _: cut(ranks, rows), np.ones(len(ranks), np.int64), (1, 1), least)
    return np.concatenate([strip.ranks for strip in strips])


@given(rank_rasters(), st.integers(1, 14), st.integers(0, 12))
def test_the_sieve_does_not_know_of_strips_and_leaves_nothing_small(
    ranks: Ranks, rows: int, least: int
) -> None:
    after = sieved(ranks, rows, least)
    np.testing.assert_array_equal(after, sieved(ranks, len(ranks), least))
    np.testing.assert_array_equal(after == NO_CLASS, ranks == NO_CLASS)
    graph = survey(cut(after, len(after)), np.ones(len(after), np.int64), (1, 1)).graph
    small = np.flatnonzero((graph.units < least) & (graph.ranks != NO_CLASS))
    assert not np.isin(graph.pairs, small).any()  # what is still small has nobody beside it


def test_the_sieve_asks_for_confidence_once_it_knows_the_patches() -> None:
    ranks, asked = np.array([[0, 1], [1, 1]], np.int16), []

    def strips(confidence: bool) -> Iterator[Strip]:
        asked.append(confidence)
        yield from cut(ranks, 1)

    assert sum(strip.ranks.sum() for strip in sieved_strips(strips, np.ones(2, np.int64), (1, 1), 2)) == 4
    assert asked == [False, True]


def test_a_small_patch_goes_to_the_neighbour_with_the_longest_border() -> None:
    ranks = np.array([[0, 0, 0, 1], [0, 2, 2, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], np.int16)
    assert sieved(ranks, 1, 3)[1, 1:3].tolist() == [0, 0]  # four sides with 0, two with the larger 1
    assert sieved(ranks, 1, 2)[1, 1:3].tolist() == [2, 2]
