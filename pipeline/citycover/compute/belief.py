"""How far the labels of a map are believed: as asked for, as its model knows, or as its own scene tells."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.evidence.cells import nearest_channels
from citycover.evidence.labels import PlaceLabels
from citycover.evidence.noise import Belief, Contradictions, LabelNoise
from citycover.evidence.rule import ENOUGH_CELLS
from citycover.geometry.footprint import degrees_of
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.plan.layers import CLASSES
from citycover.plan.plan import CHUNK, Plan

logger = logging.getLogger(__name__)

_CELLS = 8 * ENOUGH_CELLS
"""Labelled cells that a measure on the scene should rest on."""

_LEAST, _MOST = 4, 64
"""Blocks of the scene that are computed for it."""


def believe(labels: PlaceLabels, given: SweepInput) -> Belief:
    """How far labels are believed.

    Args:
        labels: of the place that is mapped.
        given: the sweep to come, still without evidence.
    """
    card = given.card
    if labels.trust is not None:
        belief = Belief(LabelNoise(1 - labels.trust, 0), "asked")
    elif _knows(card, labels, given.plan):
        assert card.label_noise is not None, "it was measured"
        belief = Belief(LabelNoise(card.label_noise, card.label_cells), "model")
    else:
        belief = Belief(measure_noise(labels, given), "scene")
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


def measure_noise(labels: PlaceLabels, given: SweepInput) -> LabelNoise:
    """Map a few blocks from all over the scene by the network alone, and compare them with their labels."""
    plan = replace(given.plan, block_shape=(CHUNK, CHUNK))
    rows, cols = plan.block_counts
    wanted = math.ceil(_CELLS * labels.pixels_per_cell / CHUNK**2)
    places = np.linspace(0, rows * cols - 1, min(rows * cols, max(_LEAST, min(wanted, _MOST))))
    heard = _Listener(len(labels.prior))
    again = replace(
        given, plan=plan, evidence=heard, layers=(CLASSES,), on_windows=lambda _run, _skipped: None
    )
    counts = Contradictions(len(labels.prior))
    nodata = given.card.legend.product_nodata
    # Along the diagonals of the table of blocks, so that neither a row nor a column is left out.
    for place in dict.fromkeys(places.round().astype(int).tolist()):
        row, col = divmod(place, cols)
        block = plan.block(row, (col + row) % cols)
        classes = next(iter(sweep(again, [block]))).layers[CLASSES.name]
        for window, probabilities in heard.take():
            channels = nearest_channels(labels.sheets, plan.grid, window)
            inside = window.shift(-block.window.row, -block.window.col).slices
            channels[classes[inside] == nodata] = NO_CLASS
            counts.add(probabilities, channels)
    return counts.noise(labels.pixels_per_cell)


@dataclass
class _Listener:
    """Evidence that changes nothing and keeps what it saw."""

    classes: int
    seen: list[tuple[Window, NDArray[np.float32]]] = field(default_factory=list)

    def __call__(self, probabilities: Any, window: Window) -> Any:
        """Keep the (class, y, x) probabilities of a window of output."""
        self.seen.append((window, probabilities.cpu().numpy().copy()))
        return probabilities

    def take(self) -> list[tuple[Window, NDArray[np.float32]]]:
        """What was kept since the last call."""
        seen, self.seen = self.seen, []
        return seen
