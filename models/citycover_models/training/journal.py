"""What a training leaves to look at: metrics.jsonl, TensorBoard events, curves and predictions as PNG."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from citycover.classes.legend import Legend
from citycover.draw.colours import colorize, stretch
from citycover.draw.parts import INK, TEXT, draw_legend, entry_width, load_font, wrap_text
from citycover.files.atomic import sync_file, write_atomic
from citycover.files.plain import parse_json

logger = logging.getLogger(__name__)

_GAP = 6

_HEAD = 32
"""Pixels above the chips, for what their columns show."""

_SIDE = 256
"""Pixels at which a chip is shown."""


class Journal:
    """Lines of metrics in a folder; going on from a step drops what was written after it.

    Args:
        folder: of the run.
        step: steps that are kept; 0 begins anew.
        criterion: name in the rows of what is drawn beside the loss, and its title.
    """

    def __init__(self, folder: Path, step: int, criterion: tuple[str, str]) -> None:
        self._folder, self._criterion = folder, criterion
        self._path = folder / "metrics.jsonl"
        self.rows = [row for row in _read(self._path) if row["step"] <= step] if step else []
        write_atomic(self._path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._events = _events(folder, step)
        self._drawn = self._drawing = 0.0

    def add(self, row: Mapping[str, Any]) -> None:
        """Append plain values; `step` is one of them."""
        self.rows.append(dict(row))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._events is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._events.add_scalar(name, value, row["step"])

    def keep(self) -> None:
        """Push the rows to disk: a checkpoint that follows is never ahead of them."""
        sync_file(self._path)

    def close(self) -> None:
        """Draw the curves to their end, and flush the events."""
        self.draw_curves()
        if self._events is not None:
            self._events.close()

    def draw_now_and_then(self) -> None:
        """Draw the curves, unless drawing them would take more than a twentieth of the time."""
        begin = time.perf_counter()
        if begin - self._drawn > 20 * self._drawing:
            self.draw_curves()
            self._drawn = time.perf_counter()
            self._drawing = self._drawn - begin

    def draw_curves(self) -> None:
        """`curves.png`: loss, learning rate and criterion over steps; needs the `plots` extra."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            logger.info("curves.png is not drawn: pip install 'citycover[plots]'")
            return
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, (key, title) in zip(
            axes,
            (
                ("loss", "loss"),
                self._criterion,
                ("lr", "learning rate"),
            ),
            strict=True,
        ):
            points = [(row["step"], row[key]) for row in self.rows if row.get(key) is not None]
            if points:
                axis.plot(
                    *zip(*points, strict=True), marker="." if len(points) < 40 else None, color="#2f6fc4"
                )
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("step", fontsize=9)
            axis.grid(alpha=0.3)
        write_atomic(self._folder / "curves.png", lambda file: figure.savefig(file, format="png", dpi=110))


class Pace:
    """How it goes: losses and pixels since the last row, and when somebody was last told."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._pixels = 0
        self._began = self._spoken = time.perf_counter()

    @property
    def is_second(self) -> bool:
        """Whether nobody was told for a second."""
        return time.perf_counter() - self._spoken >= 1

    def add(self, loss: float, pixels: int) -> None:
        """Of one step."""
        self._losses.append(loss)
        self._pixels += pixels

    def turn(self) -> dict[str, float]:
        """Mean loss and 10^6 pixels a second since the last turn."""
        began, self._began = self._began, time.perf_counter()
        row = {
            "loss": float(np.mean(self._losses)),
            "mpx_per_s": self._pixels / 1e6 / max(self._began - began, 1e-9),
        }
        self._losses, self._pixels = [], 0
        return row

    def spoke(self) -> None:
        """Somebody was told now."""
        self._spoken = time.perf_counter()


def draw_predictions(
    path: Path,
    images: NDArray[Any],
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    legend: Legend,
) -> None:
    """Chips in rows: image, labels, prediction, with a legend below.

    Args:
        path: of the PNG.
        images: (n, band, y, x) raw numbers.
        labels: (n, y, x) channels; pixels without a label, 255, are shown as nodata.
        predicted: (n, y, x) channels.
        legend: its order is that of the channels.
    """
    table = np.full(256, legend.product_nodata, np.uint8)
    table[: len(legend.ids)] = legend.ids
    rows = [
        [_image(image), colorize(table[label], legend), colorize(table[map_], legend)]
        for image, label, map_ in zip(images, labels, predicted, strict=True)
    ]
    width, height = 3 * (_SIDE + _GAP) - _GAP, len(rows) * (_SIDE + _GAP)
    entries = [(entry.rgb, entry.name) for entry in legend.classes]
    lines = wrap_text([entry_width(text) for _, text in entries], width - 2 * _GAP)
    sheet = Image.new("RGB", (width, _HEAD + height + 32 * len(lines)), "white")
    draw = ImageDraw.Draw(sheet)
    for x, name in enumerate(("image", "labels", "prediction")):
        draw.text((x * (_SIDE + _GAP) + _GAP, _HEAD - 8), name, INK, load_font(TEXT), anchor="ls")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            panel = Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(panel, (x * (_SIDE + _GAP), _HEAD + y * (_SIDE + _GAP)))
    draw_legend(draw, entries, lines, (_GAP, _HEAD + height))
    write_atomic(path, lambda file: sheet.save(file, "PNG"))


def draw_labels(
    path: Path,
    rows: Sequence[tuple[NDArray[Any], NDArray[np.floating], NDArray[np.floating]]],
    legend: Legend,
) -> None:
    """Scenes in rows: image, its labels as full stripes, and beside them how probable each is said to be.

    Args:
        path: of the PNG.
        rows: (3, y, x) raw red, green, blue; (class,) 1 where a scene has a label; (class,) probabilities.
        legend: its order is that of the classes.
    """
    stripes = np.arange(_SIDE) * len(legend.ids) // _SIDE  # (y,) class of each row of pixels
    colours = np.array([c.rgb for c in legend.classes], np.uint8)[stripes]  # (y, 3)
    sheet = Image.new("RGB", (3 * (_SIDE + _GAP) - _GAP, len(rows) * (_SIDE + _GAP) - _GAP), "white")
    for y, (image, labels, scores) in enumerate(rows):
        picture = Image.fromarray(_image(image)).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        panels = [picture]
        for shares in (labels, scores):
            filled = np.arange(_SIDE)[None] < np.round(shares[stripes] * _SIDE)[:, None]
            panel = np.where(filled[..., None], colours[:, None], np.uint8(245)).astype(np.uint8)
            panels.append(Image.fromarray(panel))
        for x, panel_ in enumerate(panels):
            sheet.paste(panel_, (x * (_SIDE + _GAP), y * (_SIDE + _GAP)))
    write_atomic(path, lambda file: sheet.save(file, "PNG"))


def _image(image: NDArray[Any]) -> NDArray[np.uint8]:
    """(band, y, x) -> (y, x, 3), the first three bands or the first alone."""
    pixels = np.moveaxis(image, 0, 2)[..., : 3 if len(image) >= 3 else 1]
    return stretch(pixels, np.ones(pixels.shape[:2], np.bool_))


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines of an earlier run; the last may have been cut by its end."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = parse_json(line)
        except ValueError:
            break
        if not (isinstance(row, dict) and isinstance(row.get("step"), int)):
            break
        rows.append(row)
    return rows


def _events(folder: Path, step: int) -> Any:
    """A TensorBoard writer, or None without the `train` extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("no TensorBoard events are written: pip install 'citycover[train]'")
        return None
    return SummaryWriter(str(folder / "events"), purge_step=step + 1 if step else None)
