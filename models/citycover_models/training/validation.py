"""How well a network agrees with the coarse labels that were held out; the truth is never seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from citycover.classes.legend import Legend
from citycover.evaluate.confusion import Confusion, count_pairs
from citycover_models.data.batches import validation_batches
from citycover_models.data.chips import ChipReader
from citycover_models.data.labels import as_ranks
from citycover_models.data.sampling import SamplePlan
from citycover_models.training.journal import draw_predictions
from citycover_models.training.trainee import Trainee

_SHOWN = 4
"""Chips in the figure."""


def validate(
    trainee: Trainee, reader: ChipReader, plan: SamplePlan, legend: Legend, batch: int, figure: Path
) -> dict[str, float]:
    """MIoU and accuracy of the weights that count, and a figure of some chips; {} without labelled chips."""
    if not plan.validation:
        return {}
    classes = len(legend.ids)
    total, seen = Confusion.empty(classes), 0
    shown: list[tuple[Any, ...]] = []
    every = -(-len(plan.validation) // _SHOWN)
    with torch.inference_mode():
        for chips in validation_batches(reader, plan, batch):
            images, labels = chips.images.numpy(), chips.labels.numpy()
            predicted = trainee.score(chips.images).argmax(1).cpu().numpy()
            total += count_pairs(as_ranks(labels), predicted, classes)
            rows = enumerate(zip(images, labels, predicted, strict=True), seen)
            shown += [row for number, row in rows if number % every == 0]
            seen += len(images)
    columns = [np.stack(column) for column in zip(*shown, strict=True)]
    draw_predictions(figure, columns[0], columns[1], columns[2], legend)
    if not total.counts.any():
        return {}
    by_class = zip(legend.names, total.iou.tolist(), strict=True)
    return {
        "validation_miou": total.miou,
        "validation_accuracy": total.overall_accuracy,
        **{f"validation_iou/{name}": iou for name, iou in by_class if not math.isnan(iou)},
    }
