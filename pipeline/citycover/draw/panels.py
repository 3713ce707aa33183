"""Pictures side by side with a title each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from citycover.classes.legend import Legend
from citycover.draw.parts import (
    GAP,
    INK,
    MARGIN,
    PAPER,
    TEXT,
    TITLE,
    draw_legend,
    entry_width,
    fit_text,
    load_font,
    wrap_text,
)
from citycover.files.atomic import write_atomic


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
    total = 2 * MARGIN + len(panels) * width + (len(panels) - 1) * GAP
    entries = [(c.rgb, c.name) for c in legend.classes]
    rows = wrap_text([entry_width(text) for _, text in entries], total - 2 * MARGIN)
    top = MARGIN + TITLE + 44
    below = top + height + 20
    picture = Image.new("RGB", (total, below + len(rows) * 32 + MARGIN - 8), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text(
        (MARGIN, MARGIN), fit_text(title, TITLE, total - 2 * MARGIN), INK, load_font(TITLE), anchor="lt"
    )
    for number, (name, pixels) in enumerate(panels):
        left = MARGIN + number * (width + GAP)
        draw.text((left, top - 10), fit_text(name, TEXT, width), INK, load_font(TEXT), anchor="ls")
        picture.paste(Image.fromarray(pixels), (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=(200, 204, 208))
    draw_legend(draw, entries, rows, (MARGIN, below))
    write_atomic(path, lambda file: picture.save(file, "PNG"))
