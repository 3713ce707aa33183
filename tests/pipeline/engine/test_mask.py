"""Validity on the grid of the output, against a look at every pixel."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover.engine.mask import on_output, valid_in_all
from citycover.geometry.window import Window

SCALES = [Fraction(s) for s in ("1", "2", "5", "1/2", "1/3", "1/10", "3/2", "2/3")]


def by_looking(
    valid: NDArray[np.bool_], origin: tuple[int, int], window: Window, scale: Fraction
) -> NDArray[np.bool_]:
    """Each output pixel on its own: any valid input pixel that shares area with it."""
    seen = np.zeros((window.height, window.width), np.bool_)
    for y, x in np.ndindex(seen.shape):
        rows, cols = (
            slice(max(0, int(first / scale) - start), max(0, -int(-(first + 1) / scale // 1) - start))
            for first, start in ((window.row + y, origin[0]), (window.col + x, origin[1]))
        )
        seen[y, x] = valid[rows, cols].any()
    return seen


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.bool_], tuple[int, int], Window, Fraction]:
    scale = draw(st.sampled_from(SCALES))
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    valid = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < draw(st.sampled_from([0.03, 0.5]))
    # Strips begin on whole periods of both grids, as windows do; what is asked for begins anywhere after.
    period = scale.denominator
    origin = draw(st.tuples(*(st.integers(0, 3).map(lambda n: n * period) for _ in range(2))))
    first = [int(n * scale) for n in origin]
    last = [int((n + size) * scale) for n, size in zip(origin, shape, strict=True)]
    row, col = (draw(st.integers(a, max(a, b - 1))) for a, b in zip(first, last, strict=True))
    window = Window(row, col, draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    return valid, origin, window, scale


@given(cases())
def test_an_output_pixel_is_valid_where_any_input_pixel_under_it_is(
    case: tuple[NDArray[np.bool_], tuple[int, int], Window, Fraction],
) -> None:
    np.testing.assert_array_equal(on_output(*case), by_looking(*case))


@given(cases(), st.integers(0, 29), st.integers(0, 29))
def test_a_part_of_the_output_is_a_part_of_the_answer(
    case: tuple[NDArray[np.bool_], tuple[int, int], Window, Fraction], down: int, right: int
) -> None:
    valid, origin, window, scale = case
    down, right = min(down, window.height - 1), min(right, window.width - 1)
    part = Window(window.row + down, window.col + right, window.height - down, window.width - right)
    np.testing.assert_array_equal(
        on_output(valid, origin, part, scale), on_output(valid, origin, window, scale)[down:, right:]
    )


def test_nothing_is_valid_beyond_the_strip() -> None:
    seen = on_output(np.ones((2, 3), np.bool_), (4, 6), Window(4, 7, 4, 4), Fraction(1))
    np.testing.assert_array_equal(np.argwhere(seen), [[0, 0], [0, 1], [1, 0], [1, 1]])


@given(st.data())
def test_a_pixel_counts_where_every_band_group_has_it(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    ratios = [1, *data.draw(st.lists(st.integers(1, 4), max_size=2))]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    groups = [rng.random(tuple(-(-n // ratio) for n in shape)) < 0.7 for ratio in ratios]
    found = valid_in_all(groups, ratios)
    assert found.shape == shape
    for y, x in np.ndindex(shape):
        assert found[y, x] == all(g[y // r, x // r] for g, r in zip(groups, ratios, strict=True))
