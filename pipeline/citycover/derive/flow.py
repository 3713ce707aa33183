"""A picture of change: what each class was, and what became of it.

before             after
| Bare    ███~~~~~~███ Bare     |     the height of a band is its area; bands of what changed are
|         ███~.   /███ Built-up |     strong, those of what stayed are pale
| Built-up███~~`~´~███          |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.derive.change import ChangeMatrix
from citycover.draw.figure import check_figure, write_figure

_GAP = 0.025
"""Between classes, as a share of all."""

_BAR = 0.035

_LABELLED = 0.012
"""Share from which a class has room for its label."""


def write_flow_figure(matrix: ChangeMatrix, legend: Legend, path: Path, names: tuple[str, str]) -> None:
    """Draw bands from classes before to classes after, into a PNG, SVG or PDF.

    Args:
        matrix: of the whole map or of a zone.
        legend: its classes.
        path: of the picture.
        names: of the two maps.

    Raises:
        ConfigError: matplotlib is not installed, or does not write such files.
        MachineError: the file cannot be written.
    """
    check_figure(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = matrix.square_metres / matrix.compared
    figure = Figure(figsize=(9, 5.6), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    tops = [_stacked(shares.sum(1)), _stacked(shares.sum(0))]
    _draw_bands(axes, shares, tops, legend)
    for x, totals, top, side in (
        (0.0, shares.sum(1), tops[0], "right"),
        (1.0, shares.sum(0), tops[1], "left"),
    ):
        _draw_bars(axes, x, totals, top, legend)
        _write_labels(axes, x, totals, top, side, legend, matrix.compared)
    for x, name in zip((0.0, 1.0), names, strict=True):
        axes.text(x, -0.035, name, ha="center", va="bottom", fontsize=11, weight="bold")
    axes.set_xlim(-0.42, 1.42)
    lowest = max(float((top + shares.sum(1 - side)).max()) for side, top in enumerate(tops))
    axes.set_ylim(lowest + _GAP, -0.08)
    axes.axis("off")
    share = matrix.changed / matrix.compared
    axes.set_title(f"{matrix.changed / 1e4:,.2f} ha changed: {share:.1%} of what was compared", fontsize=12)
    write_figure(path, figure)


def _stacked(totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """(class,) where each class begins."""
    gaps = np.cumsum(np.where(totals > 0, _GAP, 0.0)) - np.where(totals > 0, _GAP, 0.0)
    tops: NDArray[np.float64] = np.cumsum(totals) - totals + gaps
    return tops


def _draw_bars(
    axes: Any, x: float, totals: NDArray[np.float64], tops: NDArray[np.float64], legend: Legend
) -> None:
    from matplotlib.patches import Rectangle

    for entry, total, top in zip(legend.classes, totals, tops, strict=True):
        if total > 0:
            axes.add_patch(Rectangle((x - _BAR / 2, top), _BAR, total, color=entry.color, lw=0))


def _draw_bands(
    axes: Any, shares: NDArray[np.float64], tops: list[NDArray[np.float64]], legend: Legend
) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Curve

    left, right = tops[0].copy(), tops[1].copy()
    first, last, middle = _BAR / 2, 1 - _BAR / 2, 0.5
    for a, b in np.argwhere(shares > 0).tolist():
        y, z, height = left[a], right[b], shares[a, b]
        points = [
            (first, y), (middle, y), (middle, z), (last, z),
            (last, z + height), (middle, z + height), (middle, y + height), (first, y + height), (first, y),
        ]  # fmt: skip
        codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3, Curve.CLOSEPOLY]
        color = legend.classes[b].color
        axes.add_patch(PathPatch(Curve(points, codes), facecolor=color, lw=0, alpha=0.18 if a == b else 0.7))
        left[a] += height
        right[b] += height


def _write_labels(
    axes: Any,
    x: float,
    totals: NDArray[np.float64],
    tops: NDArray[np.float64],
    side: str,
    legend: Legend,
    area: float,
) -> None:
    shift = -_BAR if side == "right" else _BAR
    for entry, total, top in zip(legend.classes, totals, tops, strict=True):
        if total >= _LABELLED:
            text = f"{entry.name}  {total * area / 1e4:,.1f} ha  {total:.1%}"
            axes.text(x + shift, top + total / 2, text, ha=side, va="center", fontsize=9)
