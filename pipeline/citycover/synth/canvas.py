"""What painters paint on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.synth.materials import Mat
from citycover.synth.noise import F32


@dataclass(frozen=True, slots=True)
class Canvas:
    """The state of each square metre of a window; painters change the arrays in place."""

    material: NDArray[np.uint8]
    """(y, x) `Mat`."""
    gain: F32
    """(y, x) brightness of the object relative to its material."""
    height: F32
    """(y, x) metres above ground."""
    trees: F32
    """(y, x) chance of a tree in a cell of trees around here."""

    @classmethod
    def blank(cls, shape: tuple[int, int]) -> Canvas:
        """Flat, empty ground."""
        return cls(
            np.zeros(shape, np.uint8),
            np.ones(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )

    def paint(
        self,
        where: NDArray[np.bool_],
        material: Mat | NDArray[np.uint8],
        *,
        gain: float | F32 | None = None,
        height: float | F32 | None = None,
    ) -> None:
        """Cover a part with a material; brightness and height stay as they are unless given."""
        np.copyto(self.material, np.asarray(material, np.uint8), where=where)
        if gain is not None:
            np.copyto(self.gain, np.asarray(gain, np.float32), where=where)
        if height is not None:
            np.copyto(self.height, np.asarray(height, np.float32), where=where)

    def clear(self, where: NDArray[np.bool_]) -> None:
        """Remove what stands on a part: height, trees, and the brightness of what was there."""
        np.copyto(self.height, np.float32(0), where=where)
        np.copyto(self.trees, np.float32(0), where=where)
        np.copyto(self.gain, np.float32(1), where=where)
