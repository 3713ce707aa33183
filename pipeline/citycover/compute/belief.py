"""How far the labels of a map are believed, where they are read, and how far the network beside them.

The noise of labels is as asked for, as the model knows, or as the scene tells; the rest the scene always
tells: a few windows from all over it are mapped by the network alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.table import NO_CLASS
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.evidence.cells import nearest_channels
from citycover.evidence.change import check_windows
from citycover.evidence.comparison import Comparison
from citycover.evidence.labels import PlaceLabels, moved
from citycover.evidence.noise import Belief, LabelNoise, NoiseSource
from citycover.evidence.offset import LabelOffset, ShiftScores
from citycover.evidence.prior import mean_prediction
from citycover.evidence.rule import ENOUGH_CELLS
from citycover.geometry.footprint import degrees_of
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.plan.axis import Axis
from citycover.plan.layers import CLASSES
from citycover.plan.plan import Block, Plan

logger = logging.getLogger(__name__)

_CELLS = 8 * ENOUGH_CELLS
"""Labelled cells that a measure on the scene should rest on: with fewer, common classes may be missed."""

_LEAST, _MOST = 4, 64
"""Windows of the scene that are computed for it."""


def believe(labels: PlaceLabels, given: SweepInput) -> Belief:
    """How far labels are believed, and where they are read.

    Args:
        labels: of the place that is mapped.
        given: the sweep to come, still without evidence.

    Raises:
        ConfigError: change is looked for, and windows see too few cells for it.
    """
    card, plan = given.card, given.plan
    if labels.change:
        votes = [plan.output(axis.step + axis.feather) for axis in (plan.y, plan.x)]
        check_windows(labels.sheets, plan.grid, min(votes))
    asked = labels.trust is not None
    here = _learned_here(card, plan)
    known = not asked and here and _measured(card, labels)
    look = _look(labels, given)
    offset = look.shifts.offset()
    logger.info("%s", offset)
    prior = () if here else look.prior(labels.prior)
    comparison = look.compared(labels, offset, prior or labels.prior)
    source: NoiseSource
    if labels.trust is not None:
        noise, source = LabelNoise(1 - labels.trust, 0), "asked"
    elif known:
        assert card.label_noise is not None, "it was measured"
        noise, source = LabelNoise(card.label_noise, card.label_cells), "model"
    else:
        noise, source = comparison.noise(), "scene"
    belief = Belief(
        noise, source, offset, comparison.slopes(noise.share), prior, comparison.odds(noise.share)
    )
    logger.info("%s", belief)
    return belief


def _measured(card: ModelCard, labels: PlaceLabels) -> bool:
    """Whether the model measured labels of this legend, and enough of them."""
    enough = card.label_noise is not None and card.label_cells >= ENOUGH_CELLS
    return enough and labels.legend == card.label_legend


def _learned_here(card: ModelCard, plan: Plan) -> bool:
    """Whether the model was trained in the place that is mapped."""
    box = degrees_of(plan.grid)
    if box is None:
        return False
    slack = (box[2] - box[0] + box[3] - box[1]) / 100
    return any(
        all(a >= b - slack for a, b in zip(box[:2], learned[:2], strict=True))
        and all(a <= b + slack for a, b in zip(box[2:], learned[2:], strict=True))
        for learned in card.trained_on
    )


@dataclass
class _Look:
    """What a few windows of a scene, mapped by the network alone, tell of its labels."""

    grid: GeoBox
    """Of the map."""
    shifts: ShiftScores
    pieces: list[tuple[Window, NDArray[np.float32]]] = field(default_factory=list)
    """Output pixels, and (class, y, x) probabilities of every `shifts.step`-th of them; 0 where unseen."""

    def add(self, window: Window, probabilities: NDArray[np.float32], labels: NDArray[np.int16]) -> None:
        """Hear a window.

        Args:
            window: output pixels.
            probabilities: (class, y, x), 0 where nothing was seen.
            labels: (y, x) channels around it, as `ShiftScores` wants them.
        """
        self.shifts.add(probabilities, labels)
        thin = slice(self.shifts.step // 2, None, self.shifts.step)
        self.pieces.append((window, probabilities[:, thin, thin].copy()))

    def prior(self, trained: Sequence[float]) -> tuple[float, ...]:
        """(class,) mean probability of the network, of classes that its training had; else 0.

        In another place than that of the training the network sees other shares, and light that shifts all it
        says: what counts as evidence is what it says of a pixel beyond what it says of all of them.

        Args:
            trained: (class,) the same where it was trained.
        """
        total = sum((part.sum((1, 2), dtype=np.float64) for _, part in self.pieces), np.zeros(len(trained)))
        if not total.any():
            return tuple(trained)
        return mean_prediction(total, float(total.sum()), np.asarray(trained) > 0)

    def compared(self, labels: PlaceLabels, offset: LabelOffset, prior: Sequence[float]) -> Comparison:
        """Network and labels, these read where they say what the image shows.

        They are read with the margin that the offset was sought in: of labels in another CRS the place of a
        pixel depends a little on what is read around it.

        Args:
            labels: of the place.
            offset: of theirs against the image.
            prior: (class,) mean probability of the network.
        """
        step, margin = self.shifts.step, self.shifts.margin
        comparison = Comparison(prior, labels.pixels_per_cell / step**2)
        for window, probabilities in self.pieces:
            near = _labels_around(labels, self.grid, window, margin, offset.applied)
            inside = near[margin : margin + window.height, margin : margin + window.width]
            here = inside[step // 2 :: step, step // 2 :: step]
            comparison.add(probabilities, np.where(probabilities.any(0), here, NO_CLASS))
        return comparison


def _look(labels: PlaceLabels, given: SweepInput) -> _Look:
    """Map windows from all over the scene, and keep what the network says there.

    Args:
        labels: of the place that is mapped.
        given: the sweep to come, still without evidence.
    """
    plan = replace(given.plan, batch=1)
    look = _Look(plan.grid, ShiftScores(math.sqrt(max(1.0, labels.pixels_per_cell))))
    heard = _Listener()
    alone = replace(
        given, plan=plan, evidence=heard, layers=(CLASSES,), on_windows=lambda _run, _skipped, _slots: None
    )
    nodata = given.card.legend.product_nodata
    for block in _sample(plan, _CELLS * labels.pixels_per_cell):
        seen = next(iter(sweep(alone, [block]))).layers[CLASSES.name] != nodata
        probabilities = np.zeros((len(labels.prior), *seen.shape), np.float32)
        for window, part in heard.take():
            probabilities[:, *window.shift(-block.window.row, -block.window.col).slices] = part
        probabilities[:, ~seen] = 0
        near = _labels_around(labels, plan.grid, block.window, look.shifts.margin, (0.0, 0.0))
        look.add(block.window, probabilities, near)
    return look


def _sample(plan: Plan, pixels: float) -> Iterator[Block]:
    """Cores of windows, on each of which one window alone votes, along the diagonals of their table.

    So neither a row nor a column is left out, and nothing is computed that is not looked at.

    Args:
        plan: of the sweep.
        pixels: of output that are wanted.
    """
    rows, cols = plan.y.count, plan.x.count
    core = plan.output(plan.y.step - plan.y.feather) * plan.output(plan.x.step - plan.x.feather)
    wanted = min(rows * cols, max(_LEAST, min(math.ceil(pixels / max(1, core)), _MOST)))
    for place in np.unique(np.linspace(0, rows * cols - 1, wanted).round().astype(int)).tolist():
        row, col = divmod(place, cols)
        col = (col + row) % cols
        (top, height), (left, width) = _core(plan, plan.y, row), _core(plan, plan.x, col)
        window = Window(top, left, height, width).clip(Window(0, 0, *plan.shape))
        if window is not None:
            yield Block((row, col), window, (row, row + 1), (col, col + 1))


def _core(plan: Plan, axis: Axis, index: int) -> tuple[int, int]:
    """First output pixel on which window `index` alone votes, and how many there are, one at least."""
    shared = 0 if index == axis.count - 1 else plan.output(axis.feather)
    return plan.output(axis.step) * index, max(1, plan.output(axis.step) - shared)


def _labels_around(
    labels: PlaceLabels, grid: GeoBox, window: Window, margin: int, offset: tuple[float, float]
) -> NDArray[np.int16]:
    """(y, x) channels of the labels at the pixels of a window and `margin` more on every side."""
    corner = Affine.translation(window.col - margin, window.row - margin)
    shape = (window.height + 2 * margin, window.width + 2 * margin)
    around = moved(GeoBox(shape, grid.transform * corner, grid.crs), offset)
    return nearest_channels(labels.sheets, around, Window(0, 0, *shape))


@dataclass
class _Listener:
    """Evidence that changes nothing and keeps what it saw."""

    seen: list[tuple[Window, NDArray[np.float32]]] = field(default_factory=list)

    def __call__(self, probabilities: Any, window: Window) -> Any:
        """Keep the (class, y, x) probabilities of a window of output."""
        self.seen.append((window, probabilities.cpu().numpy().copy()))
        return probabilities

    def take(self) -> list[tuple[Window, NDArray[np.float32]]]:
        """What was kept since the last call."""
        seen, self.seen = self.seen, []
        return seen
