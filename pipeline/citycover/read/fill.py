"""FillReader: a band group that the scene does not have, as the numbers that its card names instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.read.reader import Hole, Reader
from citycover.read.resampling import store


@dataclass(frozen=True, slots=True)
class FillReader:
    """The same numbers everywhere, all of them valid."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    numbers: tuple[float, ...]
    """One a band."""
    block: tuple[int, int] = (256, 256)

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.numbers)

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:  # noqa: ARG002
        """Fill a window."""
        store(np.broadcast_to(np.asarray(self.numbers), values.shape), values)
        valid[...] = True
        return ()

    def close(self) -> None:
        """Nothing to let go of."""


_: type[Reader] = FillReader
