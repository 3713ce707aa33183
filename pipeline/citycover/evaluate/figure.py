"""A picture of the confusion matrix: shares of each true class, with the classes' colours at the edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.draw.figure import check_figure, write_figure
from citycover.evaluate.confusion import Confusion

_MOST_NUMBERS = 24
"""Classes up to which cells hold their number; more would not be legible."""


def write_matrix_figure(confusion: Confusion, legend: Legend, path: Path, title: str = "") -> None:
    """Draw the matrix into a PNG (or what else matplotlib writes, by the ending).

    Each row is a true class and adds up to 100 %, so the diagonal is the producer's accuracy. Classes that
    neither side has are left out.

    Raises:
        ConfigError: matplotlib is not installed, or does not write such files.
        MachineError: the file cannot be written.
    """
    check_figure(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    present = np.flatnonzero(confusion.counts.sum(0) + confusion.counts.sum(1))
    side = 2.8 + 0.62 * len(present)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = _shares(confusion.counts[np.ix_(present, present)])
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    if len(present) <= _MOST_NUMBERS:
        _write_numbers(axes, shares)
    _name_axes(axes, [legend.classes[k].name for k in present], confusion.counts.sum(1)[present].tolist())
    _paint_edges(axes, [legend.classes[k].color for k in present])
    axes.set_title(title or _summary(confusion), fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.8)
    write_figure(path, figure)


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Percent of each row; zero in a row without pixels."""
    shares: NDArray[np.float64] = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def _write_numbers(axes: Any, shares: NDArray[np.float64]) -> None:
    for (row, col), share in np.ndenumerate(shares):
        if share > 0:
            text = "<0.1" if share < 0.1 else f"{share:.1f}"
            axes.text(
                col, row, text, ha="center", va="center", fontsize=7.5, color="w" if share > 55 else "k"
            )


def _name_axes(axes: Any, names: list[str], frequency: list[int]) -> None:
    places = range(len(names))
    rows = [f"{name}\n{count:,}" for name, count in zip(names, frequency, strict=True)]
    axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, rows, fontsize=8)
    axes.tick_params(length=0, pad=14)
    axes.set_xlabel("map")
    axes.set_ylabel("truth, with its count")


def _paint_edges(axes: Any, colors: list[str]) -> None:
    """A swatch of each class's colour beside its row and below its column."""
    low = len(colors) - 0.5
    for place, color in enumerate(colors):
        for corner, width, height in (((-0.66, place - 0.5), 0.12, 1), ((place - 0.5, low + 0.04), 1, 0.12)):
            axes.add_patch(_rectangle(corner, width, height, color))


def _rectangle(corner: tuple[float, float], width: float, height: float, color: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, facecolor=color, edgecolor="none", clip_on=False)


def _summary(confusion: Confusion) -> str:
    return (
        f"overall accuracy {confusion.overall_accuracy:.1%}, mean IoU {confusion.miou:.1%}, "
        f"kappa {confusion.kappa:.2f}\n{confusion.compared:,} compared, {confusion.left_out:,} left out"
    )
