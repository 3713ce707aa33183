"""What a network says of a place on the whole: the measure of what it says of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SMALLEST = 1e-6
"""Mean prediction of a class that training had, at least: 0 says that it had none."""


def mean_prediction(total: NDArray[np.float64], pixels: float, learned: ArrayLike) -> tuple[float, ...]:
    """(class,) mean probability; 0 for a class that training never had.

    Args:
        total: (class,) sum of probabilities.
        pixels: over how many.
        learned: (class,) whether training had it.

    >>> mean_prediction(np.array([6.0, 4.0, 0.0]), 10, [True, False, True])
    (0.6, 0.0, 1e-06)
    """
    mean = np.maximum(total / max(1, pixels), _SMALLEST).round(6)
    return tuple(np.where(learned, mean, 0.0).tolist())
