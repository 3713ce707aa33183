"""How far the labels of a map are believed, and where they are read.

Their noise is as asked for, as the model knows, or as the scene tells; their offset the scene always tells.
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
from citycover.evidence.labels import PlaceLabels, moved
from citycover.evidence.noise import Belief, Contradictions, LabelNoise
from citycover.evidence.offset import LabelOffset, ShiftScores
from citycover.evidence.rule import ENOUGH_CELLS
from citycover.geometry.footprint import degrees_of
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.plan.layers import CLASSES
from citycover.plan.plan import CHUNK, Block, Plan

logger = logging.getLogger(__name__)

_CELLS = 8 * ENOUGH_CELLS
"""Labelled cells that a measure on the scene should rest on."""

_LEAST, _FEW, _MOST = 4, 8, 64
"""Blocks of the scene that are computed for it: at least, for the offset alone, and at most."""


def believe(labels: PlaceLabels, given: SweepInput) -> Belief:
    """How far labels are believed, and where they are read.

    Args:
        labels: of the place that is mapped.
        given: the sweep to come, still without evidence.
    """
    card = given.card
    asked = labels.trust is not None
    known = not asked and _knows(card, labels, given.plan)
    shifts = ShiftScores(math.sqrt(max(1.0, labels.pixels_per_cell)))
    guesses = _look(labels, given, shifts, few=asked or known)
    offset = shifts.offset()
    logger.info("%s", offset)
    if labels.trust is not None:
        belief = Belief(LabelNoise(1 - labels.trust, 0), "asked", offset)
    elif known:
        assert card.label_noise is not None, "it was measured"
        belief = Belief(LabelNoise(card.label_noise, card.label_cells), "model", offset)
    else:
        belief = Belief(_noise(labels, guesses, given.plan.grid, offset, shifts.margin), "scene", offset)
    logger.info("%s", belief)
    return belief


def _knows(card: ModelCard, labels: PlaceLabels, plan: Plan) -> bool:
    """Whether the model measured these labels: enough of them, of this legend, in this place."""
    if card.label_noise is None or card.label_cells < ENOUGH_CELLS or labels.legend != card.label_legend:
        return False
    box = degrees_of(plan.grid)
    if box is None:
        return False
    slack = (box[2] - box[0] + box[3] - box[1]) / 100
    return any(
        all(a >= b - slack for a, b in zip(box[:2], learned[:2], strict=True))
        and all(a <= b + slack for a, b in zip(box[2:], learned[2:], strict=True))
        for learned in card.trained_on
    )


@dataclass(frozen=True, slots=True)
class _Guess:
    """What the network alone thinks of a block; all arrays (y, x)."""

    window: Window
    best: NDArray[np.uint8]
    """Channel that is most probable."""
    sure: NDArray[np.float32]
    """Its probability."""
    seen: NDArray[np.bool_]


def _look(labels: PlaceLabels, given: SweepInput, shifts: ShiftScores, *, few: bool) -> list[_Guess]:
    """Map blocks from all over the scene, and compare them with the labels around them.

    Args:
        labels: of the place that is mapped.
        given: the sweep to come, still without evidence.
        shifts: hear the blocks.
        few: the noise is known, so that blocks for the offset alone will do.
    """
    plan = replace(given.plan, block_shape=(CHUNK, CHUNK))
    heard = _Listener()
    again = replace(
        given, plan=plan, evidence=heard, layers=(CLASSES,), on_windows=lambda _run, _skipped: None
    )
    nodata = given.card.legend.product_nodata
    guesses = []
    for block in _sample(plan, labels.pixels_per_cell, few=few):
        seen = next(iter(sweep(again, [block]))).layers[CLASSES.name] != nodata
        probabilities = np.zeros((len(labels.prior), *seen.shape), np.float32)
        for window, part in heard.take():
            probabilities[:, *window.shift(-block.window.row, -block.window.col).slices] = part
        probabilities[:, ~seen] = 0
        shifts.add(probabilities, _labels_around(labels, plan.grid, block.window, shifts.margin, (0.0, 0.0)))
        best = probabilities.argmax(0).astype(np.uint8)
        guesses.append(_Guess(block.window, best, probabilities.max(0), seen))
    return guesses


def _noise(
    labels: PlaceLabels, guesses: Sequence[_Guess], grid: GeoBox, offset: LabelOffset, margin: int
) -> LabelNoise:
    """What the network contradicts of the labels where it is surest, once it is known where they are read.

    They are read with the margin that the offset was sought in: of labels in another CRS the place of a pixel
    depends a little on what is read around it.
    """
    counts = Contradictions(len(labels.prior))
    for guess in guesses:
        near = _labels_around(labels, grid, guess.window, margin, offset.applied)
        here = near[margin : margin + guess.window.height, margin : margin + guess.window.width]
        counts.add_best(guess.best, guess.sure, np.where(guess.seen, here, NO_CLASS))
    return counts.noise(labels.pixels_per_cell)


def _sample(plan: Plan, pixels_per_cell: float, *, few: bool) -> Iterator[Block]:
    """Blocks along the diagonals of the table of blocks, so that neither a row nor a column is left out."""
    rows, cols = plan.block_counts
    wanted = max(_LEAST, min(math.ceil(_CELLS * pixels_per_cell / CHUNK**2), _FEW if few else _MOST))
    places = np.linspace(0, rows * cols - 1, min(rows * cols, wanted))
    for place in np.unique(places.round().astype(int)).tolist():
        row, col = divmod(place, cols)
        yield plan.block(row, (col + row) % cols)


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
