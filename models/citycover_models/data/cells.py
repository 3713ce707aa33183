"""Squares of the ground: what is learned from, and what is held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.overlap import seen_from
from citycover.geometry.window import Window
from citycover_models.data.labels import IGNORE
from citycover_models.data.pairs import Pair

CELLS = 1 << 21
"""Cells of all images together, about: their counts are held in memory."""

_AT_ONCE = 1 << 20
"""Labels, about, that are counted at a time: memory does not grow with the image."""


@dataclass(frozen=True)
class Cells:
    """Labels of one image, counted on squares."""

    shape: tuple[int, int]
    """(y, x) pixels of the image."""
    side: int
    """Side of a cell in pixels."""
    counts: NDArray[np.float32]
    """(cell row, cell col, class) labelled samples."""
    held_out: NDArray[np.bool_]
    """(block row, block col) True where nothing may be learned."""
    block: int
    """Side of a held-out block in pixels."""
    elsewhere: tuple[Window, ...] = ()
    """What other images hold out, where they lie over this one."""

    def touches_held_out(self, window: Window) -> bool:
        """Whether a chip shares a pixel with a block that is held out."""
        rows = slice(max(window.row, 0) // self.block, (window.row_end - 1) // self.block + 1)
        cols = slice(max(window.col, 0) // self.block, (window.col_end - 1) // self.block + 1)
        return bool(self.held_out[rows, cols].any()) or any(map(window.clip, self.elsewhere))

    def held_windows(self) -> Iterator[Window]:
        """Pixels of the blocks that are held out."""
        image = Window(0, 0, *self.shape)
        for row, col in np.argwhere(self.held_out).tolist():
            block = Window(row * self.block, col * self.block, self.block, self.block).clip(image)
            assert block is not None, "blocks begin inside the image"
            yield block


def held_elsewhere(
    pairs: Sequence[Pair], cells: Sequence[Cells], number: int, others: Sequence[int]
) -> tuple[Window, ...]:
    """What other images hold out, as windows of image `number`."""
    here = pairs[number].scene.grid
    windows = (
        seen_from(block, pairs[other].scene.grid, here)
        for other in others
        for block in cells[other].held_windows()
    )
    return tuple(window for window in windows if window is not None)


def taken_blocks(cells: Cells, elsewhere: Sequence[Window]) -> NDArray[np.bool_]:
    """(block row, block col) True where another image holds out most of a block already."""
    share = np.zeros(cells.held_out.shape)
    for window in elsewhere:
        for row in range(window.row // cells.block, (window.row_end - 1) // cells.block + 1):
            for col in range(window.col // cells.block, (window.col_end - 1) // cells.block + 1):
                part = window.clip(Window(row * cells.block, col * cells.block, cells.block, cells.block))
                share[row, col] += part.pixels / cells.block**2 if part else 0
    taken: NDArray[np.bool_] = share > 0.5
    return taken


def cell_side(shape: tuple[int, int], chip: int, most: int) -> int:
    """Side of a cell in pixels: an eighth of a chip, or what keeps an image of `shape` to `most` cells."""
    return max(8, chip // 8, int(np.ceil(np.sqrt(shape[0] * shape[1] / most))))


def count_cells(pair: Pair, num_classes: int, chip: int, most: int) -> Cells:
    """Labels of one image on cells; nothing held out yet."""
    height, width = pair.shape
    side = cell_side((height, width), chip, most)
    step = max(1, side // 8)
    side = step * max(1, side // step)
    rows, cols = -(-height // side), -(-width // side)
    counts = np.zeros((rows, cols, num_classes), np.float32)
    reader = pair.label_reader(step)
    per_cell = side // step
    coarse = Window(0, 0, -(-height // step), -(-width // step))
    strip = max(1, _AT_ONCE // (per_cell * coarse.width))
    for first in range(0, rows, strip):
        wanted = Window(first * per_cell, 0, min(strip, rows - first) * per_cell, coarse.width)
        part = wanted.clip(coarse)
        assert part is not None, "strips start inside the image"
        labels = reader.read(part)
        y, x = np.nonzero(labels != IGNORE)
        np.add.at(counts, (first + y // per_cell, x // per_cell, labels[y, x]), 1.0)
    reader.close()
    block = 2 * chip
    held_out = np.zeros((-(-height // block), -(-width // block)), np.bool_)
    return Cells((height, width), side, counts, held_out, block)


def hold_out(
    cells: Cells, taken: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A share of the blocks that have labels, at least one where these are four or more; else none.

    Slivers at the edge into which no chip fits are no blocks. Blocks that another image holds out already,
    `taken`, count towards the share: a place seen ten times is not held out ten times as much.
    """
    held = np.zeros(taken.size, np.bool_)
    sides = [size - cells.block * np.arange(-(-size // cells.block)) for size in cells.shape]
    high, wide = (left >= cells.block // 2 for left in sides)  # a chip is half a block
    blocks = (high[:, None] & wide[None] & _labelled(cells)).ravel()
    total = int(blocks.sum())
    if share > 0 and total >= 4:
        free = [k for k in rng.permutation(taken.size).tolist() if blocks[k] and not taken.flat[k]]
        held[free[: max(0, max(1, round(share * total)) - int(taken.ravel()[blocks].sum()))]] = True
    return held.reshape(taken.shape)


def _labelled(cells: Cells) -> NDArray[np.bool_]:
    """(block row, block col) True where labels lie at least a tenth as dense as in the block with most."""
    rows, cols = (
        [slice(k * cells.block // cells.side, -(-(k + 1) * cells.block // cells.side)) for k in range(count)]
        for count in cells.held_out.shape
    )
    labels = cells.counts.sum(2)
    density = np.array([[labels[row, col].mean() for col in cols] for row in rows])
    found: NDArray[np.bool_] = density > density.max() / 10
    return found
