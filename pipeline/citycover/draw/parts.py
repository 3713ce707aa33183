"""Parts of a drawing: text that fits, a legend, a scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import ImageDraw, ImageFont

MARGIN, GAP = 36, 28

TITLE, TEXT, SMALL = 26, 18, 15

PAPER, INK, FAINT = (255, 255, 255), (32, 36, 42), (112, 118, 126)


def load_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow ships."""
    return ImageFont.load_default(size=size)


def fit_text(text: str, size: int, width: int) -> str:
    """The text, its end cut off where it is wider than `width`."""
    font = load_font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def entry_width(text: str) -> int:
    """Pixels that an entry of the legend takes."""
    return 30 + math.ceil(load_font(TEXT).getlength(text)) + 26


def wrap_text(widths: Sequence[int], most: int) -> list[list[int]]:
    """Positions of entries, row by row, none wider than `most`.

    >>> wrap_text([40, 40, 40], 100)
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


def draw_legend(
    draw: ImageDraw.ImageDraw,
    entries: Sequence[tuple[tuple[int, int, int], str]],
    rows: Sequence[Sequence[int]],
    corner: tuple[int, int],
) -> None:
    """Draw entries in rows from a corner (x, y)."""
    for line, row in enumerate(rows):
        x, y = corner[0], corner[1] + 32 * line
        for number in row:
            color, text = entries[number]
            draw.rounded_rectangle((x, y + 2, x + 20, y + 22), 4, fill=color, outline=(150, 154, 158))
            draw.text((x + 30, y + 12), text, INK, load_font(TEXT), anchor="lm")
            x += entry_width(text)


def draw_scale_bar(draw: ImageDraw.ImageDraw, corner: tuple[int, int], metres: float, panel: int) -> None:
    """A bar of round length, some quarter of the panel wide."""
    length = round_length(metres * panel * 0.3)
    pixels = round(length / metres)
    x, y = corner
    draw.rectangle((x, y + 4, x + pixels, y + 9), fill=INK)
    draw.text((x + pixels + 10, y + 7), length_text(length), INK, load_font(SMALL), anchor="lm")


def round_length(most: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, 0.1, ...) that is at most `most`.

    >>> round_length(730), round_length(0.3)
    (500.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(most))
    digit = next(d for d in (5, 2, 1) if d * power <= most * (1 + 1e-9))
    return round(digit * power, 12)


def length_text(metres: float) -> str:
    """A length as people read it.

    >>> length_text(500), length_text(2000)
    ('500 m', '2 km')
    """
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
