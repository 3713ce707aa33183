"""The picture of the demo: image, labels, map and truth side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from citycover_cli.output import say

if TYPE_CHECKING:
    from citycover.classes.legend import Legend
    from citycover.evaluate.confusion import Confusion

_PANEL = 420
"""Pixels of a side in story.png, at most."""


def print_accuracy(results: dict[str, Confusion], legend: Legend) -> None:
    """Print the accuracy of several maps, a line each."""
    say("compared with the truth, intersection over union in %")
    names = [c.name for c in legend.classes]
    say("  " + " " * 22 + "".join(f"{name[:14]:>16}" for name in [*names, "mean", "accuracy"]))
    for label, confusion in results.items():
        numbers = [*confusion.iou, confusion.miou, confusion.overall_accuracy]
        say(f"  {label:<22}" + "".join(f"{100 * n:>16.1f}" for n in numbers))


def draw_story(
    path: Path, files: tuple[Path, ...], legend: Legend, coarse: Confusion, mapped: Confusion
) -> None:
    """Draw image, labels, map and truth side by side."""
    import numpy as np
    import rasterio

    from citycover.draw.colours import colorize, stretch
    from citycover.draw.panels import write_panels

    panels: list[tuple[str, Any]] = []
    names = (
        "image, 1 m",
        f"coarse labels, 10 m: mIoU {coarse.miou:.0%}",
        f"map, 1 m: mIoU {mapped.miou:.0%}",
        "truth",
    )
    with rasterio.open(files[0]) as source:
        side = min(_PANEL, source.height)
    for name, file in zip(names, files, strict=True):
        with rasterio.open(file) as source:
            bands = [1, 2, 3] if source.count >= 3 else [1]
            pixels = np.moveaxis(source.read(bands, out_shape=(len(bands), side, side)), 0, 2)
        seen = np.ones(pixels.shape[:2], np.bool_)
        panels.append((name, stretch(pixels, seen) if len(bands) == 3 else colorize(pixels[..., 0], legend)))
    write_panels(path, panels, legend, "A city learned from coarse labels")
