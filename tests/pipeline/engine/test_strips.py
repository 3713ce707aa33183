import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from citycover.engine.strips import StripSource, reflect
from citycover.geometry.window import Window
from citycover.plan.axis import Axis
from citycover.read.reader import ArrayReader


@given(st.integers(1, 9), st.integers(0, 25), st.integers(0, 25))
def test_reflect_is_numpys_reflect_padding(size: int, before: int, after: int) -> None:
    wanted = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(reflect(-before, size + before + after, size), wanted)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    feather, trim = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    step = draw(st.integers(max(1, feather), 20))
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    y, x = (Axis(n, step, trim, feather) for n in shape)
    first = draw(st.integers(0, x.count - 1))
    return {
        "y": y,
        "x": x,
        "shape": shape,
        "columns": range(first, draw(st.integers(first + 1, x.count))),
        "row": draw(st.integers(0, y.count - 1)),
        "block": draw(st.tuples(st.integers(1, 80), st.integers(1, 80))),
    }


@settings(max_examples=60)
@given(cases())
def test_strips_are_the_filled_raster_reflected_and_decode_each_row_once(case: dict) -> None:
    height, width = case["shape"]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (height, width, 2), np.uint8)
    valid = rng.random((height, width)) < 0.8
    decoded = np.zeros(height, int)

    def note(window: Window) -> None:
        decoded[window.row : window.row_end] += 1

    y, x, columns = case["y"], case["x"], case["columns"]
    reader = ArrayReader(image, valid, case["block"], note)
    source = StripSource(reader, y, x, columns, (0, 0), (7.4, 9.6))
    filled = np.where(valid[..., None], image, np.array([7, 10], np.uint8))
    cols = reflect(x.start(columns[0]), x.start(columns[-1]) + x.window - x.start(columns[0]), width)
    for index, strip in enumerate(source.strips(case["row"]), start=case["row"]):
        rows = reflect(y.start(index), y.window, height)
        np.testing.assert_array_equal(strip.values, filled[rows][:, cols])
        np.testing.assert_array_equal(strip.valid, valid[rows][:, cols])
    assert decoded.max() == 1


def test_a_strip_stays_untouched_while_the_next_one_is_read() -> None:
    image = np.arange(200 * 8, dtype=np.float32).reshape(200, 8, 1)
    y, x = Axis(200, 20, 4, 2), Axis(8, 8, 0, 0)
    strips = StripSource(ArrayReader(image), y, x, range(1), (0, 0), (0.0,)).strips(0)
    current = next(strips)
    for index, following in enumerate(strips):
        np.testing.assert_array_equal(current.values, image[reflect(y.start(index), y.window, 200)])
        current = following
