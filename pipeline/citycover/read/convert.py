"""Numbers of a file become those that a network learned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.scene.scene import BandSource


def convert(numbers: NDArray[Any], band: BandSource, dtype: np.dtype[Any]) -> NDArray[Any]:
    """`gain * number + bias` in float64; rounded, and held within the limits of a type of whole numbers.

    What is not finite has no meaning there, and is not to be looked at.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers.astype(np.float64) * band.gain + band.bias
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(np.nan_to_num(values)), limits.min, limits.max)
        return values.astype(dtype)
