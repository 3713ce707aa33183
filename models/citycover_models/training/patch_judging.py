"""A network looks at patches that it does not learn from: probabilities of labels, or classes of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from citycover.evaluate.confusion import Confusion, count_pairs
from citycover_models.data.labels import as_ranks
from citycover_models.data.patch_batches import PatchSource
from citycover_models.training.journal import draw_labels, draw_predictions
from citycover_models.training.trainee import Trainee

_SHOWN = 4
"""Patches in a figure."""

_RGB = [2, 1, 0]
"""Red, green and blue among the bands of 10 m."""


def look_at_scenes(
    trainee: Trainee, source: PatchSource, batch: int, figure: Path | None = None
) -> NDArray[np.float32]:
    """(patch, class) probabilities of labels; draws some of the patches into `figure`."""
    rows: list[NDArray[np.float32]] = []
    shown = []
    every = -(-len(source.patches) // _SHOWN)
    with torch.inference_mode():
        for patches in source.once(batch):
            # The same in every cell of a window, as the map will have it.
            scores = trainee.score(*patches.groups)[:, :, 0, 0].float().sigmoid().cpu().numpy()
            images, labels = patches.groups[0][:, _RGB].numpy(), patches.labels.numpy()
            for number, row in enumerate(zip(images, labels, scores, strict=True), batch * len(rows)):
                if number % every == 0:
                    shown.append(row)
            rows.append(scores)
    if figure is not None:
        draw_labels(figure, shown, source.legend)
    return np.concatenate(rows)


def compare_with_references(
    trainee: Trainee, source: PatchSource, batch: int, figure: Path | None = None
) -> Confusion:
    """Classes of pixels against the reference maps; draws some of the patches into `figure`."""
    classes = len(source.legend.ids)
    total, shown, seen = Confusion.empty(classes), [], 0
    every = -(-len(source.patches) // _SHOWN)
    with torch.inference_mode():
        for patches in source.once(batch):
            assert patches.reference is not None, "they are read where they are learned from"
            truth = patches.reference.numpy()
            said = trainee.score(*patches.groups).argmax(1).cpu().numpy()
            total += count_pairs(as_ranks(truth), said, classes)
            rows = enumerate(zip(patches.groups[0][:, _RGB].numpy(), truth, said, strict=True), seen)
            shown += [row for number, row in rows if number % every == 0]
            seen += len(said)
    if figure is not None:
        images, truths, maps = (np.stack(column) for column in zip(*shown, strict=True))
        draw_predictions(figure, images, truths, maps, source.legend)
    return total
