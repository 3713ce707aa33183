"""What a trained network must know of itself before labels can be weighed against it.

Drawing chips by class shifts what a network says of every pixel; its mean prediction over chips drawn evenly
says by how much. Its held-out squares, which it never saw, say how noisy the labels are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.classes.raster import ClassRaster
from citycover.classes.table import NO_CLASS
from citycover.errors import TrainingError
from citycover.evidence.comparison import Comparison
from citycover.evidence.noise import LabelNoise
from citycover.evidence.prior import mean_prediction
from citycover.geometry.footprint import degrees_of
from citycover.geometry.grid import Bounds, pixel_ground_size
from citycover_models.data.chips import ChipReader, as_planes
from citycover_models.data.labels import as_ranks
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import BEYOND, Chip, SamplePlan

_CHIPS = 200
"""Chips over which the mean prediction is taken, and at most as many held-out ones are looked at."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What was measured."""

    prior: tuple[float, ...]
    """(class,) mean probability; 0 for a class that no label of training meant."""
    noise: LabelNoise | None
    """Of the held-out labels; None: nothing was held out."""
    legend: str
    """Of the labels."""
    boxes: tuple[Bounds, ...]
    """Degrees of each image that was learned from."""

    @property
    def fields(self) -> dict[str, Any]:
        """As fields of a model card."""
        return {
            "trained_prior": self.prior,
            "label_legend": self.legend,
            "label_noise": None if self.noise is None else round(self.noise.share, 6),
            "label_cells": 0 if self.noise is None else int(self.noise.cells),
            "trained_on": self.boxes,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What is said of the labels once a training has ended, as plain values."""
        return {"labels": str(self), **{name: self.fields[name] for name in ("label_noise", "label_cells")}}

    def __str__(self) -> str:
        return (
            "labels: none were held out, so their noise is not known"
            if self.noise is None
            else str(self.noise)
        )


def measure_knowledge(
    scores: Callable[[Tensor], Tensor], reader: ChipReader, plan: SamplePlan, pairs: Sequence[Pair]
) -> Knowledge:
    """Look at chips that the network was trained on, and at those that it was not.

    Args:
        scores: (n, band, y, x) raw pixels -> (n, class, y, x) logits.
        reader: of the chips.
        plan: of the training.
        pairs: what it learned from.

    Raises:
        TrainingError: the network says what is no number.
    """
    even = replace(plan, balance="uniform")
    counts = plan.label_counts
    total, pixels = np.zeros(len(counts)), 0
    for index in range(_CHIPS):
        probabilities, channels = _look(scores, reader, even.draw(BEYOND, index))
        seen = channels != NO_CLASS
        total += probabilities[:, seen].sum(1, dtype=np.float64)
        pixels += int(seen.sum())
    prior = mean_prediction(total, pixels, counts > 0)
    boxes = (degrees_of(pair.scene.grid) for pair in pairs)
    return Knowledge(
        prior=prior,
        noise=_noise(scores, reader, plan, pairs, prior),
        legend=pairs[0].labels[0].legend,
        boxes=tuple(box for box in boxes if box is not None),
    )


def _look(
    scores: Callable[[Tensor], Tensor], reader: ChipReader, chip: Chip
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """(class, y, x) probabilities and (y, x) channels of a chip, NO_CLASS where there is no label."""
    pixels, channels = reader.read(chip)
    with torch.inference_mode():
        probabilities = scores(as_planes(pixels)[None])[0].float().softmax(0).cpu().numpy()
    if np.isnan(probabilities).any():  # of a step before, the loss would have said so
        raise TrainingError(
            "what the network says is no number: weights were lost in the last steps (lower optimiser.lr, or "
            "set clip); start again with --overwrite"
        )
    return probabilities, as_ranks(channels)


def _noise(
    scores: Callable[[Tensor], Tensor],
    reader: ChipReader,
    plan: SamplePlan,
    pairs: Sequence[Pair],
    prior: Sequence[float],
) -> LabelNoise | None:
    if not plan.held_out:
        return None
    comparison = Comparison(prior, _pixels_per_cell(pairs, plan.held_scale))
    for chip in plan.held_out[:: -(-len(plan.held_out) // _CHIPS)]:  # evenly, over all images
        comparison.add(*_look(scores, reader, chip))
    return comparison.noise()


def _pixels_per_cell(pairs: Sequence[Pair], scale: float) -> float:
    """Median over the images, whose pixels are enlarged by a scale."""
    ratios = []
    for pair in pairs:
        with ClassRaster(pair.labels[0].path, "labels") as labels:
            cell = np.prod(pixel_ground_size(labels.grid))
        ratios.append(float(cell / np.prod(pixel_ground_size(pair.scene.grid))))
    return max(1.0, scale**2 * float(np.median(ratios)))
