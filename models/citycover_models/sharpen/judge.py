"""How good a map with labels is where nothing but labels is known.

On the squares that training held out, every fourth cell of the labels is kept back from the map as well. What
is said there by the labels around it, by the network alone, and by both is averaged over the pixels of the
cell, and compared with the label that was kept back. So nobody is judged by what it was told. Labels that are
wrong count against all three alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.classes.table import NO_CLASS
from citycover.evaluate.confusion import Confusion, count_pairs
from citycover.evidence.cells import CellReader
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.place import Placement
from citycover.evidence.withheld import WithheldCells, cells_under, is_withheld
from citycover.geometry.window import Window
from citycover.model.predictor import Predictor
from citycover.model.probabilities import to_probabilities
from citycover_models.data.chips import ChipReader, as_planes
from citycover_models.data.labels import IGNORE
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import Chip, SamplePlan

OUTPUTS = ("labels around", "network alone", "network + labels around")
"""What is judged."""

_CHIPS = 400
"""Held-out chips that are looked at, at most."""

_WHOLE = 0.5
"""Share of a cell's pixels that must be seen."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Cells that were kept back, by their labels and by what was said of them."""

    confusions: Mapping[str, Confusion]
    """One for each of OUTPUTS, of cells."""

    @property
    def cells(self) -> int:
        """How many were compared."""
        return self.confusions[OUTPUTS[0]].compared

    def gains(self) -> NDArray[np.float64]:
        """(class,) IoU of network and labels together, less that of the labels around alone."""
        gains: NDArray[np.float64] = self.confusions[OUTPUTS[2]].iou - self.confusions[OUTPUTS[0]].iou
        return gains


def judge(predictor: Predictor, evidence: LabelEvidence, pair: Pair, plan: SamplePlan) -> Judgement | None:
    """Compare what is said of cells that were kept back; None where no label was kept back.

    Args:
        predictor: the trained network.
        evidence: labels, and how far they are believed. Several sheets are judged one by one.
        pair: image and labels that were learned from.
        plan: of the training.
    """
    if not plan.held_out:
        return None
    classes = len(evidence.prior)
    totals = {name: Confusion.empty(classes) for name in OUTPUTS}
    reader = ChipReader([pair], predictor.card.groups[0].fill)
    nothing = torch.tensor(evidence.prior, device=predictor.device).view(-1, 1, 1)  # what it says on average
    for sheet in evidence.sheets:
        field = LabelField(
            replace(evidence, sheets=(sheet,)), pair.scene.grid, predictor.device, WithheldCells
        )
        cells, place = CellReader(sheet), Placement(pair.scene.grid, sheet.grid)
        for chip in _whole_chips(plan, pair):
            probabilities, seen = _look(predictor, reader, chip)
            seen &= (field.smoothed(chip.window).sum(0) > 0).cpu().numpy()  # a label is within reach
            kept = _kept_back(cells, place, chip.window, seen)
            around = field(nothing.expand_as(probabilities).clone(), chip.window)
            said = (around, probabilities, field(probabilities.clone(), chip.window))
            for name, planes in zip(OUTPUTS, said, strict=True):
                totals[name] += count_pairs(kept.labels, kept.sums(planes.cpu().numpy()).argmax(0), classes)
    found = Judgement(totals)
    return found if found.cells else None


def _whole_chips(plan: SamplePlan, pair: Pair) -> Iterator[Chip]:
    """Held-out chips inside the image, evenly from all over it."""
    image = Window(0, 0, *pair.shape)
    whole = [chip for chip in plan.held_out if chip.window.clip(image) == chip.window]
    yield from whole[:: max(1, -(-len(whole) // _CHIPS))]


def _look(predictor: Predictor, reader: ChipReader, chip: Chip) -> tuple[Tensor, NDArray[np.bool_]]:
    """(class, y, x) probabilities of the network alone, and (y, x) where the image was seen and labelled."""
    pixels, channels = reader.read(chip)
    image = as_planes(pixels)[None].to(predictor.device)  # (1, band, y, x)
    return to_probabilities(predictor([image]), predictor.card)[0], channels != IGNORE


@dataclass(frozen=True, slots=True)
class _KeptBack:
    """Cells of a chip that are kept back."""

    labels: NDArray[np.int64]
    """(cell,) channel."""
    member: NDArray[np.int64]
    """(y, x) number of the cell that a pixel belongs to, -1: none of them."""

    def sums(self, planes: NDArray[np.float32]) -> NDArray[np.float64]:
        """(class, y, x) -> (class, cell)."""
        inside = self.member >= 0
        at = self.member[inside]
        return np.stack([np.bincount(at, plane[inside], len(self.labels)) for plane in planes])


def _kept_back(cells: CellReader, place: Placement, window: Window, seen: NDArray[np.bool_]) -> _KeptBack:
    """Cells that are kept back, have a label and lie in the chip with most of their pixels."""
    row, col = cells_under(place, window)
    inside = seen & is_withheld(row, col)
    if not inside.any():
        return _KeptBack(np.zeros(0, np.int64), np.full(seen.shape, -1))
    top, left = int(row.min()), int(col.min())
    around = Window(top, left, int(row.max()) - top + 1, int(col.max()) - left + 1)
    key = (row[inside] - top) * around.width + col[inside] - left
    found, place_of, count = np.unique(key, return_inverse=True, return_counts=True)
    labels = cells.read(around).ravel()[found]
    good = (labels != NO_CLASS) & (count >= _WHOLE * count.max())
    number = np.where(good, np.cumsum(good) - 1, -1)
    member = np.full(seen.shape, -1, np.int64)
    member[inside] = number[place_of]
    return _KeptBack(labels[good].astype(np.int64), member)
