"""Pieces of output become blocks."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.machine.memory import pages
from citycover.plan.layers import Layer
from citycover.plan.plan import Block
from citycover.read.reader import Hole


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """One block of output."""

    block: Block
    layers: Mapping[str, NDArray[np.uint8]]
    """([band,] y, x) by name of the layer; nodata where invalid."""
    holes: tuple[Hole, ...]
    """What could not be read since the block before."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some pixels of output in all layers."""

    window: Window
    """Output pixels."""
    layers: Mapping[str, NDArray[np.uint8]]
    """([band,] y, x) by name of the layer."""

    def put(self, other: Piece) -> None:
        """Take the pixels of another piece that lie inside of this one."""
        common = self.window.clip(other.window)
        if common is None:
            return
        to = common.shift(-self.window.row, -self.window.col).slices
        of = common.shift(-other.window.row, -other.window.col).slices
        for name, values in self.layers.items():
            values[(..., *to)] = other.layers[name][(..., *of)]


class Spare:
    """Arrays of blocks that were written, for blocks of the same shape: new pages come slowly, one by one.

    One thread takes, one gives.
    """

    def __init__(self) -> None:
        self._kept: dict[str, deque[NDArray[np.uint8]]] = defaultdict(deque)

    def give(self, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        """Nobody looks at these any more."""
        for name, values in layers.items():
            self._kept[name].append(values)

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array with anything in it; what does not fit goes: blocks that follow are like this one."""
        kept = self._kept[name]
        while kept:
            if (values := kept.popleft()).shape == shape:
                return values
        return pages(shape, np.uint8)


class Canvas:
    """A block in the making."""

    def __init__(self, block: Block, layers: Iterable[Layer], channels: int, spare: Spare) -> None:
        self.block = block
        pixels = (block.window.height, block.window.width)
        # Every row is put before a block is finished: nothing needs to be filled in.
        made = {layer.name: spare.take(layer.name, layer.shape(channels, pixels)) for layer in layers}
        self.piece = Piece(block.window, made)

    def put(self, piece: Piece) -> bool:
        """Take the rows that are ours, which come from top to bottom; True once the block is complete."""
        self.piece.put(piece)
        return piece.window.row_end >= self.block.window.row_end

    def finished(self, holes: tuple[Hole, ...]) -> FinishedBlock:
        """The block as it is handed over."""
        return FinishedBlock(self.block, self.piece.layers, holes)
