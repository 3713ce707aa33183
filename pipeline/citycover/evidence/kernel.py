"""What cells say at a position between them: weights along one axis."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.evidence.place import REACH

_PARTS = 2048
"""Weights are whole parts of one. Products and sums of two such weights are exact in float32 (and in TF32),
so that no order of summation, no device and no size of a tile changes a pixel."""


def cell_weights(at: NDArray[np.float64], first: int, count: int, sigma: float) -> Tensor:
    """(position, cell) float32 weights of cells `first` to `first + count` at positions along an axis.

    With sigma 0 they are linear between the two centres around a position. Else the labels are taken as what
    they are, constant over each cell, and smoothed by a Gaussian: each cell has the part of it that lies over
    the cell, of at most two cells to either side.

    Args:
        at: (position,) in cells; whole numbers are centres.
        first: the first cell.
        count: cells.
        sigma: in cells.
    """
    here = torch.from_numpy(at)[:, None]
    cells = torch.floor(here + 0.5) + torch.arange(-REACH, REACH + 1)  # (position, cell around it)
    away = cells - here
    if sigma == 0:
        weights = (1 - away.abs()).clamp_(min=0)
    else:
        weights = torch.special.ndtr((away + 0.5) / sigma) - torch.special.ndtr((away - 0.5) / sigma)
    exact = (weights * _PARTS).round_().div_(_PARTS).float()
    place = cells.long() - first
    exact *= (place >= 0) & (place < count)
    return torch.zeros(len(at), count).scatter_add_(1, place.clamp_(0, count - 1), exact)
