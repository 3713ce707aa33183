"""Crowns of trees: at most one per cell of a lattice, where the ground under its stem allows one."""

from __future__ import annotations

import numpy as np

from citycover.synth.canvas import Canvas
from citycover.synth.districts import Frame
from citycover.synth.materials import Mat
from citycover.synth.noise import F32, hashed, key, unit
from citycover.synth.parameters import CITY

_CODE = np.int32(0xFF)


def plant_trees(seed: int, frame: Frame, canvas: Canvas, ragged: F32) -> None:
    """Paint crowns over a canvas.

    A cell's tree stands anywhere in its cell and is smaller than a cell, so a pixel asks the 3 x 3 cells
    around it. Cells are whole pixels: the canvas is seen as (cell row, row, cell column, column) and every
    cell is compared with its pixels by broadcasting. Among crowns that overlap the highest wins; its number
    rides in the low bits of the squared height.

    Args:
        seed: of the city.
        frame: its window begins and ends on the lattice of cells; the outermost ring of cells is incomplete.
        canvas: painted in place.
        ragged: (y, x) noise in [-1, 1] that makes outlines irregular.
    """
    size = CITY.layout.tree_cell
    height, width = canvas.material.shape
    cells = (height // size, width // size)
    i = (frame.rows[::size] // size)[:, None]
    j = (frame.cols[::size] // size)[None, :]
    bits = hashed(key(seed, "tree"), i, j)
    y, x = unit(bits) * (size - 1), unit(bits, 8) * (size - 1)  # stem within its cell
    stem = (
        (np.arange(cells[0])[:, None] * size + np.rint(y)).astype(np.intp),
        (np.arange(cells[1])[None, :] * size + np.rint(x)).astype(np.intp),
    )
    present = unit(bits, 16) < canvas.trees[stem]
    wild = canvas.trees[stem] > 0.7
    radius = np.float32(1.9) + np.where(wild, np.float32(3.4), np.float32(3.0)) * unit(bits, 24)
    radius += wild * np.float32(1.4)
    tall = radius * np.float32(1.9) + 2
    peak = np.where(present, tall * tall, np.float32(-1))
    slope = peak / (radius * radius)
    code = (bits >> np.uint32(11)).astype(np.int32) & _CODE
    best = _highest(cells, size, (y, x), peak, np.where(present, slope, np.float32(0)), code, ragged)
    crown = (best > _CODE).reshape(height, width) & (canvas.height < 7)
    number = (best & _CODE).reshape(height, width)
    squared = (best & ~_CODE).view(np.float32).reshape(height, width)
    conifer = (number & 7) == 0
    gain = np.float32(0.72) + number.astype(np.float32) * np.float32(0.56 / 255)
    crown &= squared > 1.0
    canvas.paint(
        crown,
        np.where(conifer, np.uint8(Mat.CONIFER), np.uint8(Mat.TREE)),
        gain=gain,
        height=np.sqrt(np.maximum(squared, 0)),
    )


def _highest(
    cells: tuple[int, int],
    size: int,
    stem: tuple[F32, F32],
    peak: F32,
    slope: F32,
    code: np.ndarray[tuple[int, int], np.dtype[np.int32]],
    ragged: F32,
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """(cell row, row, cell column, column) bits of the highest squared crown height, and whose it is."""
    best = np.zeros((cells[0], size, cells[1], size), np.int32)
    stretch = (1 + np.float32(0.45) * ragged).reshape(best.shape)
    inside = np.arange(size, dtype=np.float32)
    padded = [
        np.pad(a, 1, constant_values=c) for a, c in ((stem[0], 0), (stem[1], 0), (peak, -1), (slope, 0))
    ]
    owner = np.pad(code, 1)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            part = np.s_[1 + di : 1 + di + cells[0], 1 + dj : 1 + dj + cells[1]]
            y0, x0, top, fall = (a[part][:, None, :, None] for a in padded)
            dy = inside[None, :, None, None] - y0 - np.float32(di * size)
            dx = inside[None, None, None, :] - x0 - np.float32(dj * size)
            squared = dy * dy + dx * dx
            squared *= stretch
            squared *= fall
            np.subtract(top, squared, out=squared)
            found = squared.view(np.int32)
            found &= ~_CODE
            found |= owner[part][:, None, :, None]
            np.maximum(best, found, out=best)
    return best
