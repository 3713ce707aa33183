"""The preview: what is drawn where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from citycover.classes.legend import Legend, LegendClass
from citycover.draw.colours import colorize, stretch
from citycover.draw.parts import round_length
from citycover.draw.preview import PreviewInput, decimation, draw_preview, write_preview

LEGEND = Legend(
    name="test",
    classes=(
        LegendClass(id=1, name="water", color="#1f78b4"),
        LegendClass(id=2, name="trees and other tall vegetation", color="#33a02c"),
        LegendClass(id=3, name="never seen", color="#ff00ff"),
    ),
)


def make_input(shape: tuple[int, int] = (400, 500)) -> PreviewInput:
    rng = np.random.default_rng(0)
    classes = np.where(np.indices(shape).sum(axis=0) % 90 < 40, 1, 2).astype(np.uint8)
    valid = np.ones(shape, dtype=np.bool_)
    valid[: shape[0] // 5] = False
    classes[~valid] = 255
    image = stretch(rng.normal(1000, 200, (*shape, 3)) + 500.0 * classes[..., None], valid)
    return PreviewInput(image, valid, classes, LEGEND, 2.0, "A city", "a scene and a model")


def colors(picture: Image.Image) -> set[tuple[int, ...]]:
    packed = np.asarray(picture).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return {(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in np.unique(packed)}


def test_the_map_shows_the_legend_colours_of_classes_that_occur() -> None:
    seen = colors(draw_preview(make_input()))
    assert {(0x1F, 0x78, 0xB4), (0x33, 0xA0, 0x2C)} <= seen
    assert (255, 0, 255) not in seen


def test_nodata_is_a_checker_board() -> None:
    base = make_input((40, 60))
    nothing = replace(base, valid=np.zeros_like(base.valid), classes=np.full_like(base.classes, 255))
    assert {(238, 238, 238), (224, 224, 224)} <= colors(draw_preview(nothing))


def test_bands_are_stretched_over_valid_pixels_only() -> None:
    image = np.full((50, 50, 1), 9999, dtype=np.uint16)
    image[10:, :, 0] = np.linspace(100, 200, 50)
    image[0, 0] = 0
    valid = np.zeros((50, 50), dtype=np.bool_)
    valid[10:] = True
    out = stretch(image, valid)
    assert out.shape == (50, 50, 3)
    assert out[10:, 0].max() == 0
    assert out[10:, -1].min() == 255
    assert stretch(np.full((4, 4, 3), np.nan), np.ones((4, 4), np.bool_)).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (1000, 3), (64, 64)])
def test_any_shape_can_be_drawn(shape: tuple[int, int]) -> None:
    picture = draw_preview(replace(make_input(shape), title="a very long title " * 20))
    assert picture.width >= 700


def test_the_file_is_a_png_of_the_picture(tmp_path: Path) -> None:
    write_preview(tmp_path / "preview.png", make_input())
    with Image.open(tmp_path / "preview.png") as written:
        assert written.format == "PNG"
        assert colors(written.convert("RGB")) == colors(draw_preview(make_input()))
    assert [p.name for p in tmp_path.iterdir()] == ["preview.png"]


def test_shapes_that_differ_are_a_bug() -> None:
    with pytest.raises(ValueError, match="share"):
        replace(make_input(), valid=np.ones((3, 3), np.bool_))


@given(st.floats(1e-3, 1e6))
@settings(max_examples=25)
def test_a_scale_bar_is_round_and_not_too_short(most: float) -> None:
    length = round_length(most)
    assert most / 2.51 < length <= most * 1.000001
    assert f"{length:e}"[0] in "125"


def test_decimation_keeps_to_the_limit() -> None:
    for side in (1, 999, 1000, 1001, 8192):
        step = decimation((side, 5))
        assert len(range(0, side, step)) <= 1000


def test_ids_become_colours() -> None:
    assert colorize(np.array([[1, 3]], np.uint8), LEGEND).tolist() == [[[0x1F, 0x78, 0xB4], [255, 0, 255]]]
