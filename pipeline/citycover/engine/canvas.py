"""Rows of tiles become blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.machine.memory import pages
from citycover.plan.plan import Block
from citycover.read.reader import Hole


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """One block of output."""

    block: Block
    classes: NDArray[np.uint8]
    """(y, x) legend ids; nodata where invalid."""
    confidence: NDArray[np.uint8]
    """(y, x) round(255 p) of the best class, at least 1; 0 where invalid."""
    holes: tuple[Hole, ...]
    """What could not be read since the block before."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Finished rows of output, as wide as the block."""

    row: int
    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]

    def below(self, row: int) -> Piece:
        """The part from `row` on."""
        return Piece(row, self.classes[row - self.row :], self.confidence[row - self.row :])


class Canvas:
    """A block in the making."""

    def __init__(self, block: Block) -> None:
        self.block = block
        shape = (block.window.height, block.window.width)
        # Every row is put before a block is finished: nothing needs to be filled in.
        self.classes = pages(shape, np.uint8)
        self.confidence = pages(shape, np.uint8)

    def put(self, piece: Piece) -> Piece | None:
        """Take the rows that are ours. Once the block is complete, give back what lies below it."""
        window = self.block.window
        row, end = max(piece.row, window.row), min(piece.row + len(piece.classes), window.row_end)
        if end > row:
            to, of = slice(row - window.row, end - window.row), slice(row - piece.row, end - piece.row)
            self.classes[to] = piece.classes[of]
            self.confidence[to] = piece.confidence[of]
        return piece.below(end) if end == window.row_end else None

    def finished(self, holes: tuple[Hole, ...]) -> FinishedBlock:
        """The block as it is handed over."""
        return FinishedBlock(self.block, self.classes, self.confidence, holes)
