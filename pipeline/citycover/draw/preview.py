"""`preview.png`: the image beside the map, with a legend that says how much of each class there is.

    +-------------------------------------------+
    | title                                     |
    | +---------------+   +---------------+     |
    | | image         |   | map           |     |
    | +---------------+   +---------------+     |
    | |--- 500 m ---|                           |
    | [] water 12.3 %   [] bare 4.0 %   ...     |
    +-------------------------------------------+

Arrays in, picture out; drawn with Pillow alone, so that a mapping machine needs no plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from citycover.classes.legend import Legend
from citycover.draw.colours import colorize
from citycover.draw.parts import (
    FAINT,
    GAP,
    INK,
    MARGIN,
    PAPER,
    SMALL,
    TITLE,
    draw_legend,
    draw_scale_bar,
    entry_width,
    fit_text,
    load_font,
    wrap_text,
)
from citycover.files.atomic import write_atomic

MAX_SIDE = 1000
"""Pixels of the longer side of image and map."""

_MIN_SIDE = 360

_CHECKER = (np.array([238, 238, 238], np.uint8), np.array([224, 224, 224], np.uint8))

_CHECK = 12
"""Side of the squares that stand for nodata."""


@dataclass(frozen=True, slots=True)
class PreviewInput:
    """What is drawn. Image and map show the same ground and have one shape, decimated already."""

    image: NDArray[np.uint8]
    """(y, x, 3) red, green, blue."""
    valid: NDArray[np.bool_]
    """(y, x); where the image was observed."""
    classes: NDArray[np.uint8]
    """(y, x) legend ids and the product's nodata."""
    legend: Legend
    metres: float
    """Ground metres per pixel of these arrays."""
    title: str
    subtitle: str = ""
    counts: Mapping[int, int] | None = None
    """Pixels of each class in the full map; None: counted in `classes`."""

    def __post_init__(self) -> None:
        if not self.image.shape[:2] == self.valid.shape == self.classes.shape or self.image.shape[2:] != (3,):
            raise ValueError(
                f"image {self.image.shape}, valid {self.valid.shape} and classes {self.classes.shape} "
                "must share (y, x), and the image have three bands"
            )


def decimation(shape: tuple[int, int], most: int = MAX_SIDE) -> int:
    """Keep every n-th pixel, and neither side is longer than `most`.

    >>> decimation((8192, 3000))
    9
    """
    return max(1, math.ceil(max(shape) / most))


def write_preview(path: Path, given: PreviewInput) -> None:
    """Draw and write the picture, wholly or not at all."""
    picture = draw_preview(given)
    # Runs of equal bytes alone: three quarters of the time of level 3, and smaller.
    write_atomic(path, lambda file: picture.save(file, "PNG", compress_level=1, compress_type=Image.RLE))


def draw_preview(given: PreviewInput) -> Image.Image:
    """The whole picture."""
    scale = _magnification(given.classes.shape)
    image = _panel(given.image, given.valid, scale)
    seen = given.classes != given.legend.product_nodata
    chart = _panel(colorize(given.classes, given.legend), seen, scale)
    width = max(2 * MARGIN + 2 * image.width + GAP, 2 * MARGIN + 2 * _MIN_SIDE + GAP)
    entries = _shares(given)
    rows = wrap_text([entry_width(text) for _, text in entries], width - 2 * MARGIN)
    top = MARGIN + TITLE + 14 + (SMALL + 10 if given.subtitle else 0)
    below = top + image.height + 16
    height = below + 34 + len(rows) * 32 + MARGIN - 8
    picture = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text(
        (MARGIN, MARGIN), fit_text(given.title, TITLE, width - 2 * MARGIN), INK, load_font(TITLE), anchor="lt"
    )
    if given.subtitle:
        text = fit_text(given.subtitle, SMALL, width - 2 * MARGIN)
        draw.text((MARGIN, MARGIN + TITLE + 10), text, FAINT, load_font(SMALL), anchor="lt")
    for panel, x in ((image, MARGIN), (chart, MARGIN + image.width + GAP)):
        picture.paste(panel, (x, top))
        draw.rectangle((x - 1, top - 1, x + panel.width, top + panel.height), outline=(200, 204, 208))
    draw_scale_bar(draw, (MARGIN, below), given.metres / scale, image.width)
    draw_legend(draw, entries, rows, (MARGIN, below + 34))
    return picture


def _magnification(shape: tuple[int, ...]) -> int:
    """Whole factor that brings small maps to a readable size."""
    return max(1, math.ceil(_MIN_SIDE / max(shape[:2])))


def _panel(rgb: NDArray[np.uint8], valid: NDArray[np.bool_], scale: int) -> Image.Image:
    """A picture, magnified by whole pixels, with a checker board where nothing is valid."""
    large = rgb.repeat(scale, axis=0).repeat(scale, axis=1)
    if valid.all():
        return Image.fromarray(large)
    seen = valid.repeat(scale, axis=0).repeat(scale, axis=1)
    rows, cols = np.arange(seen.shape[0])[:, None], np.arange(seen.shape[1])
    board = np.where(((rows // _CHECK + cols // _CHECK) % 2 == 0)[..., None], *_CHECKER)
    return Image.fromarray(np.where(seen[..., None], large, board))


def _shares(given: PreviewInput) -> list[tuple[tuple[int, int, int], str]]:
    """(colour, text) of each class that occurs, the largest first."""
    counts = given.counts
    if counts is None:
        counts = {i: int(np.count_nonzero(given.classes == i)) for i in given.legend.ids}
    total = sum(counts.values())
    found = sorted((c for c in given.legend.classes if counts.get(c.id)), key=lambda c: -counts[c.id])
    return [(c.rgb, f"{c.name}  {_percent(counts[c.id] / total)}") for c in found]


def _percent(share: float) -> str:
    """A share as it stands in the legend.

    >>> _percent(0.1234), _percent(0.0001)
    ('12.3 %', '< 0.1 %')
    """
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
