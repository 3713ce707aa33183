"""Numbers as PNG: classes in the colours of a legend, steps in a ramp, an image as it is."""

from __future__ import annotations

import io
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from citycover.classes.legend import Legend
from citycover.draw.colours import CONFIDENCE_RAMP

_UNCHANGED = (150, 150, 146, 120)
"""Of pixels that are what they were: seen, and out of the way."""


def paint_classes(ranks: NDArray[np.int16], legend: Legend, off: Collection[int] = ()) -> bytes:
    """A picture of (y, x) ranks; transparent where there is no class, or one whose id is off."""
    return _png((ranks + 1).clip(0, 255).astype(np.uint8), _palette(legend, off))


def paint_change(
    before: NDArray[np.int16], after: NDArray[np.int16], legend: Legend, off: Collection[int] = ()
) -> bytes:
    """A picture of (y, x) pairs of ranks: what changed in the colour of what it became, the rest pale."""
    palette = _palette(legend, off)
    palette[255] = _UNCHANGED
    place = np.where(before == after, 255, after + 1)
    return _png(np.where((before < 0) | (after < 0), 0, place).astype(np.uint8), palette)


def paint_steps(steps: NDArray[np.uint8], valid: NDArray[np.bool_], scale: float, flip: bool) -> bytes:
    """A picture of (y, x) numbers that stand for 0..1.

    Args:
        steps: in units of `scale`.
        valid: where there are any.
        scale: what one step stands for.
        flip: more is worse, as of entropy.
    """
    share = (steps * scale).clip(0, 1)
    place = (254 * (1 - share if flip else share)).round().astype(np.uint8) + 1
    palette = np.zeros((256, 4), np.uint8)
    palette[1:, :3], palette[1:, 3] = CONFIDENCE_RAMP[np.linspace(0, 255, 255).round().astype(int)], 255
    return _png(np.where(valid, place, 0).astype(np.uint8), palette)


def paint_image(rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> bytes:
    """A picture of (y, x, 3) colours."""
    alpha = np.where(valid, 255, 0).astype(np.uint8)
    return _bytes(Image.fromarray(np.dstack([rgb, alpha])))


def _palette(legend: Legend, off: Collection[int]) -> NDArray[np.uint8]:
    """(256, 4) colours by rank + 1."""
    palette = np.zeros((256, 4), np.uint8)
    for k, entry in enumerate(legend.classes[:254], start=1):
        palette[k] = (*entry.rgb, 0 if entry.id in off else 255)
    return palette


def _png(places: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    height, width = places.shape
    picture = Image.frombytes("P", (width, height), places.tobytes())
    picture.putpalette(palette[:, :3].tobytes())
    return _bytes(picture, transparency=palette[:, 3].tobytes())


def _bytes(picture: Image.Image, **options: bytes) -> bytes:
    held = io.BytesIO()
    picture.save(held, "png", compress_level=1, **options)  # over loopback, time counts and size does not
    return held.getvalue()
