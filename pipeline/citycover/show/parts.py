"""Parts of which sections of the report are made: as HTML that is well-formed as XML is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

_CELLS = 16
"""Most classes whose matrix is spelled out."""


def style() -> str:
    """How it looks."""
    text = files("citycover.show").joinpath("report.css").read_text(encoding="utf-8")
    return f"<style>{text}</style>"


def listed(lines: Iterable[str]) -> str:
    """Lines of text under each other."""
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def chip(color: str) -> str:
    """A patch of colour."""
    return f'<span class="chip" style="background:{color}"></span>'


def key(entries: Iterable[tuple[str, str]]) -> str:
    """Colours and what they mean, each in one piece."""
    return " ".join(f'<span class="key">{chip(color)}{escape(text)}</span>' for color, text in entries)


def matrix_table(
    names: Sequence[str], cells: NDArray[np.floating], texts: Sequence[Sequence[str]], sides: tuple[str, str]
) -> str:
    """A square table whose cells are the darker the larger their share of the row.

    Args:
        names: of classes.
        cells: (row, column) what is shared out in each row.
        texts: (row, column) what is written there.
        sides: what rows and what columns are.
    """
    if len(names) > _CELLS:
        return ""
    totals = np.maximum(cells.sum(1, keepdims=True), 1e-12)
    shares = cells / totals
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(
            f'<td class="{"same" if k == j else "other"}" style="--heat:{shares[k, j]:.3f}">'
            f"{escape(texts[k][j])}</td>"
            for j in range(len(names))
        )
        + "</tr>"
        for k, name in enumerate(names)
    )
    return (
        f'<div class="wide-table" tabindex="0" role="region" aria-label="{escape(sides[0])} by '
        f'{escape(sides[1])}"><table class="matrix"><caption>rows: {escape(sides[0])}; columns: '
        f"{escape(sides[1])}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
