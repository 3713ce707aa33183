"""Reader: decoded pixels of one band group, whatever holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window


@dataclass(frozen=True, slots=True)
class Hole:
    """A rectangle that could not be read; its pixels are invalid."""

    window: Window
    path: str
    reason: str


class Reader(Protocol):
    """Decoded pixels of one band group. Not thread-safe: one reader, one thread."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the raster."""
        ...

    @property
    def bands(self) -> int:
        """Number of bands."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type of what is read."""
        ...

    @property
    def block(self) -> tuple[int, int]:
        """(y, x) shape in which pixels are compressed: reading whole blocks decodes nothing twice."""
        ...

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        """Read one window, which lies inside the raster.

        Args:
            window: what to read.
            values: (y, x, band) array or strided view of `dtype` that receives raw digital numbers.
                What stands in it where `valid` is False means nothing.
            valid: (y, x) receives True where the pixel was observed in every band.

        Returns:
            What could not be read, after retries; `valid` is False there.
        """
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


@dataclass
class ArrayReader:
    """A reader of arrays in memory: the fake beside the protocol, and the one for notebooks."""

    values: NDArray[Any]
    """(y, x, band)."""
    valid: NDArray[np.bool_] | None = None
    """(y, x); None: all valid."""
    block: tuple[int, int] = (256, 256)
    on_read: Callable[[Window], None] = field(default=lambda _window: None)
    """Called with each window that is read: for tests."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def bands(self) -> int:
        """Number of bands."""
        return int(self.values.shape[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return self.values.dtype

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        """Copy a window."""
        self.on_read(window)
        values[...] = self.values[window.slices]
        valid[...] = True if self.valid is None else self.valid[window.slices]
        return ()

    def close(self) -> None:
        """Nothing to let go of."""


_: type[Reader] = ArrayReader
