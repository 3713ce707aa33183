"""Pictures say the numbers that they were made of."""

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from making import make_legend
from numpy.typing import NDArray
from PIL import Image

from citycover.view.paint import paint_change, paint_classes, paint_image, paint_steps

LEGEND = make_legend(5)
RANKS = arrays(np.int16, (7, 9), elements=st.integers(-1, 4))


def pixels(picture: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(picture)).convert("RGBA"))


@given(RANKS, st.sets(st.sampled_from(LEGEND.ids)))
def test_classes_have_the_colours_of_the_legend(ranks: NDArray[np.int16], off: set[int]) -> None:
    seen = pixels(paint_classes(ranks, LEGEND, off))
    for k, entry in enumerate(LEGEND.classes):
        here = seen[ranks == k]
        assert (here[:, :3] == entry.rgb).all() and (here[:, 3] == (0 if entry.id in off else 255)).all()
    assert (seen[ranks == -1][:, 3] == 0).all()


@given(RANKS, RANKS)
def test_change_has_the_colour_of_what_it_became(one: NDArray[np.int16], other: NDArray[np.int16]) -> None:
    seen = pixels(paint_change(one, other, LEGEND))
    known = (one >= 0) & (other >= 0)
    changed = known & (one != other)
    np.testing.assert_array_equal(seen[changed], pixels(paint_classes(other, LEGEND))[changed])
    assert (seen[known & ~changed][:, 3] < 255).all() and (seen[~known][:, 3] == 0).all()


def test_steps_run_from_red_to_blue_and_back_for_entropy() -> None:
    steps = np.array([[1, 128, 255]], np.uint8)
    valid = np.array([[True, True, False]])
    seen = pixels(paint_steps(steps, valid, 1 / 255, flip=False))
    assert seen[0, 0, 0] > seen[0, 0, 2] and seen[0, 2, 3] == 0 and seen[0, 1, 3] == 255
    assert pixels(paint_steps(255 - steps, valid, 1 / 255, flip=True))[0, 0].tolist() == seen[0, 0].tolist()


def test_an_image_is_transparent_where_nothing_was_seen() -> None:
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    seen = pixels(paint_image(rgb, np.array([[True, False], [True, True]])))
    assert (seen[..., :3] == rgb).all() and seen[0, 1, 3] == 0 and (seen[1, :, 3] == 255).all()
