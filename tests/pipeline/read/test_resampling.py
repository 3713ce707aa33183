"""Resampling along one axis, from its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import windows

from citycover.geometry.window import Window
from citycover.read.reader import ArrayReader
from citycover.read.resampling import axis_taps

scales = st.floats(1.0, 6.0)
sizes = st.integers(2, 60)


@given(st.data(), sizes, scales, st.sampled_from(["average", "bilinear"]))
def test_weights_sum_to_one_inside_of_the_input(
    data: st.DataObject, size: int, scale: float, kind: Any
) -> None:
    last = int(size / scale)  # whole output pixels
    start = data.draw(st.integers(0, last - 1)) if last > 1 else 0
    taps = axis_taps(start, max(last, 1), scale, size, kind)
    if last >= 1:
        assert taps.weight.sum(0) == pytest.approx(1, abs=1e-5)
    assert (taps.weight >= 0).all() and taps.index.min() == 0


@given(st.data(), sizes, scales, st.sampled_from(["average", "bilinear"]))
def test_a_part_is_resampled_as_the_whole(data: st.DataObject, size: int, scale: float, kind: Any) -> None:
    count = max(1, int(size / scale))
    values = np.random.default_rng(size).random(size)

    def resampled(start: int, stop: int) -> np.ndarray:
        taps = axis_taps(start, stop, scale, size, kind)
        return (values[taps.first + taps.index] * taps.weight).sum(0)

    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    np.testing.assert_array_equal(resampled(start, stop), resampled(0, count)[start:stop])


@given(st.data(), st.integers(1, 5))
def test_average_over_whole_pixels_is_their_mean(data: st.DataObject, scale: int) -> None:
    count = data.draw(st.integers(1, 20))
    values = np.random.default_rng(count).random(count * scale).astype(np.float32)
    taps = axis_taps(0, count, float(scale), count * scale, "average")
    found = (values[taps.first + taps.index] * taps.weight).sum(0)
    np.testing.assert_allclose(found, values.reshape(count, scale).mean(1), rtol=1e-5)


@given(st.data())
def test_a_window_of_an_array_is_the_array_there(data: st.DataObject) -> None:
    values = np.arange(30 * 20 * 2, dtype=np.uint16).reshape(30, 20, 2)
    valid = values[..., 0] % 7 > 0
    window: Window = data.draw(windows((30, 20)))
    out = np.empty((window.height, window.width, 2), np.uint16)
    seen = np.empty(out.shape[:2], np.bool_)
    assert ArrayReader(values, valid).read_into(window, out, seen) == ()
    np.testing.assert_array_equal(out, values[window.slices])
    np.testing.assert_array_equal(seen, valid[window.slices])
