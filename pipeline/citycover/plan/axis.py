"""One axis of a plan: where windows begin, what they own, and how their weights rise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EXACT = 2**16
"""Weights are multiples of 1 / 65536, so that rise + fall = 1 holds exactly in float32."""


def rise(feather: int) -> NDArray[np.float32]:
    """(f,) raised cosine sampled at pixel centres; `1 - rise` is its mirror image.

    >>> rise(2)
    array([0.14645386, 0.85354614], dtype=float32)
    """
    phase = np.pi * (np.arange(feather) + 0.5) / max(feather, 1)
    half = np.rint((1 - np.cos(phase)) / 2 * _EXACT) / _EXACT
    return half.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Axis:
    """Windows along one axis."""

    size: int
    """Input pixels to cover."""
    step: int
    """S: distance of windows, side of a cell."""
    trim: int
    """t: pixels at each end of a window that never vote."""
    feather: int
    """f: pixels over which neighbours hand over; at most S, so that at most two windows vote on a pixel."""
    goes_on: bool = False
    """Windows go on past the last pixel, which ends a cell: that which looks at the next cell votes, too."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 1 or min(self.trim, self.feather) < 0 or self.feather > self.step:
            raise ValueError(f"no such axis: {self}")
        if self.goes_on and self.size % self.step:
            raise ValueError(f"cells end in the middle of what goes on: {self}")

    @property
    def window(self) -> int:
        """W: length of a window."""
        return self.step + 2 * self.trim + self.feather

    @property
    def halo(self) -> int:
        """How far the first window starts before the first pixel: t + f."""
        return self.trim + self.feather

    @property
    def count(self) -> int:
        """Number of windows, and of cells."""
        return math.ceil((self.size + self.goes_on * self.feather) / self.step)

    def start(self, index: int) -> int:
        """First pixel of window `index`; negative for the first."""
        return index * self.step - self.halo

    def votes(self, index: int) -> tuple[int, int]:
        """First pixel that window `index` votes on, and one past the last.

        >>> Axis(size=100, step=40, trim=8, feather=4).votes(1)
        (36, 80)
        """
        last = self.size if index == self.count - 1 else (index + 1) * self.step
        return max(0, index * self.step - self.feather), last

    def weights(self, index: int) -> NDArray[np.float32]:
        """(W,) weight of each pixel of window `index`: the picture above, in numbers."""
        weights = np.ones(self.window, dtype=np.float32)
        ramp = rise(self.feather)
        weights[: self.trim] = 0
        weights[self.trim : self.halo] = ramp
        if index < self.count - 1:
            weights[self.window - self.halo : self.window - self.trim] = 1 - ramp
            weights[self.window - self.trim :] = 0
        else:
            weights[self.window - self.trim :] = 0
        return weights


def coarse_axis(axis: Axis, ratio: int) -> Axis:
    """The same windows in the pixels of a coarser band group."""
    if ratio == 1:
        return axis
    lengths = (axis.step // ratio, axis.trim // ratio, axis.feather // ratio)
    return Axis(-(-axis.size // ratio), *lengths, axis.goes_on)
