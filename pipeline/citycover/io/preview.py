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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from citycover.io.store import write_atomic
from citycover.legend import Legend

MAX_SIDE = 1000
"""Pixels of the longer side of image and map."""

_MIN_SIDE = 360
_MARGIN, _GAP = 36, 28
_TITLE, _TEXT, _SMALL = 26, 18, 15
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 36, 42), (112, 118, 126)
_CHECKER = (np.array([238, 238, 238], np.uint8), np.array([224, 224, 224], np.uint8))
_CHECK = 12
"""Side of the squares that stand for nodata."""


@dataclass(frozen=True, slots=True)
class PreviewInput:
    """What is drawn. Image and map show the same ground and have one shape, decimated already."""

    image: NDArray[np.generic]
    """(y, x, 3) red, green, blue in any numeric type; or (y, x, 1) for a single band."""
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
        if not self.image.shape[:2] == self.valid.shape == self.classes.shape or self.image.ndim != 3:
            raise ValueError(
                f"image {self.image.shape}, valid {self.valid.shape} and classes {self.classes.shape} "
                "must share (y, x)"
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
    write_atomic(path, lambda file: picture.save(file, "PNG", compress_level=3))


def draw_preview(given: PreviewInput) -> Image.Image:
    """The whole picture."""
    scale = _magnification(given.classes.shape)
    image = _panel(stretch(given.image, given.valid), given.valid, scale)
    seen = given.classes != given.legend.product_nodata
    chart = _panel(colorize(given.classes, given.legend), seen, scale)
    width = max(2 * _MARGIN + 2 * image.width + _GAP, 2 * _MARGIN + 2 * _MIN_SIDE + _GAP)
    entries = _shares(given)
    rows = _wrap([_entry_width(text) for _, text in entries], width - 2 * _MARGIN)
    top = _MARGIN + _TITLE + 14 + (_SMALL + 10 if given.subtitle else 0)
    below = top + image.height + 16
    height = below + 34 + len(rows) * 32 + _MARGIN - 8
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text(
        (_MARGIN, _MARGIN), _fit(given.title, _TITLE, width - 2 * _MARGIN), _INK, _font(_TITLE), anchor="lt"
    )
    if given.subtitle:
        text = _fit(given.subtitle, _SMALL, width - 2 * _MARGIN)
        draw.text((_MARGIN, _MARGIN + _TITLE + 10), text, _FAINT, _font(_SMALL), anchor="lt")
    left = (width - 2 * image.width - _GAP) // 2
    for panel, x in ((image, left), (chart, left + image.width + _GAP)):
        picture.paste(panel, (x, top))
        draw.rectangle((x - 1, top - 1, x + panel.width, top + panel.height), outline=(200, 204, 208))
    _draw_scale_bar(draw, (left, below), given.metres / scale, image.width)
    _draw_legend(draw, entries, rows, (_MARGIN, below + 34))
    return picture


def stretch(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(y, x, 3) uint8: each band from its 2nd to its 98th percentile over valid pixels."""
    bands = []
    for band in np.moveaxis(image.astype(np.float32), 2, 0):
        good = valid & np.isfinite(band)
        low, high = np.percentile(band[good], (2, 98)) if good.any() else (0.0, 1.0)
        scaled = (np.nan_to_num(band) - low) * (255 / max(high - low, 1e-6))
        bands.append(np.clip(scaled, 0, 255).astype(np.uint8))
    return np.stack(bands if len(bands) == 3 else bands[:1] * 3, axis=2)


def colorize(classes: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """(y, x, 3) uint8: legend colours; ids without one are black."""
    table = np.zeros((256, 3), dtype=np.uint8)
    for entry in legend.classes:
        table[entry.id] = entry.rgb
    return table[classes]


def _magnification(shape: tuple[int, ...]) -> int:
    """Whole factor that brings small maps to a readable size."""
    return max(1, _MIN_SIDE // max(shape[:2]))


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


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _fit(text: str, size: int, width: int) -> str:
    """The text, its end cut off where it is wider than `width`."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _entry_width(text: str) -> int:
    return 30 + math.ceil(_font(_TEXT).getlength(text)) + 26


def _wrap(widths: Sequence[int], most: int) -> list[list[int]]:
    """Positions of entries, row by row, none wider than `most`.

    >>> _wrap([40, 40, 40], 100)
    [[0, 1], [2]]
    """
    rows: list[list[int]] = []
    used = most + 1
    for number, width in enumerate(widths):
        if used + width > most:
            rows.append([])
            used = 0
        rows[-1].append(number)
        used += width
    return rows


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    entries: Sequence[tuple[tuple[int, int, int], str]],
    rows: Sequence[Sequence[int]],
    corner: tuple[int, int],
) -> None:
    for line, row in enumerate(rows):
        x, y = corner[0], corner[1] + 32 * line
        for number in row:
            color, text = entries[number]
            draw.rounded_rectangle((x, y + 2, x + 20, y + 22), 4, fill=color, outline=(150, 154, 158))
            draw.text((x + 30, y + 12), text, _INK, _font(_TEXT), anchor="lm")
            x += _entry_width(text)


def _draw_scale_bar(draw: ImageDraw.ImageDraw, corner: tuple[int, int], metres: float, panel: int) -> None:
    """A bar of round length, some quarter of the panel wide."""
    length = round_length(metres * panel * 0.3)
    pixels = round(length / metres)
    x, y = corner
    draw.rectangle((x, y + 4, x + pixels, y + 9), fill=_INK)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    draw.text((x + pixels + 10, y + 7), text, _INK, _font(_SMALL), anchor="lm")


def round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, 0.1, ...) that is at most `most`.

    >>> round_length(730), round_length(0.3)
    (500.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(most))
    digit = next(d for d in (5, 2, 1) if d * power <= most * (1 + 1e-9))
    return round(digit * power, 12)


def write_panels(
    path: Path, panels: Sequence[tuple[str, NDArray[np.uint8]]], legend: Legend, title: str
) -> None:
    """Write pictures of the same ground side by side, each under its name, with a legend below.

    Args:
        path: of the PNG.
        panels: (name, (y, x, 3)) pairs; all of one shape.
        legend: its classes are listed.
        title: of the whole.
    """
    height, width = panels[0][1].shape[:2]
    total = 2 * _MARGIN + len(panels) * width + (len(panels) - 1) * _GAP
    entries = [(c.rgb, c.name) for c in legend.classes]
    rows = _wrap([_entry_width(text) for _, text in entries], total - 2 * _MARGIN)
    top = _MARGIN + _TITLE + 44
    below = top + height + 20
    picture = Image.new("RGB", (total, below + len(rows) * 32 + _MARGIN - 8), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN), _fit(title, _TITLE, total - 2 * _MARGIN), _INK, _font(_TITLE), anchor="lt")
    for number, (name, pixels) in enumerate(panels):
        left = _MARGIN + number * (width + _GAP)
        draw.text((left, top - 10), _fit(name, _TEXT, width), _INK, _font(_TEXT), anchor="ls")
        picture.paste(Image.fromarray(pixels), (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=(200, 204, 208))
    _draw_legend(draw, entries, rows, (_MARGIN, below))
    write_atomic(path, lambda file: picture.save(file, "PNG"))
