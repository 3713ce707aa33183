"""Whether labels lie a little beside the image, by how much, and how sure that is.

The network's probabilities, without any labels, are compared with the labels read up to two cells away in
every direction. Where they lie right, the label of a pixel is what the network believes most in:

    score(shift) = mean over pixels u of P_k(u) - mean(P_k),   k = label(u + shift)

The scores of a few blocks are added up; a paraboloid through those around the best gives the offset to parts
of a cell. Each ninth of a block is a witness: leaving out one after the other (jackknife) tells how far the
offset would move. Only what many witnesses agree on, and what is large enough to matter, is sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS

_REACH = 2.5
"""Cells that are looked at: offsets up to two are found, larger ones are other labels."""

_PER_CELL = 4
"""Shifts that are looked at along a cell."""

_LEAST = 0.25
"""Cells; a smaller offset is left alone: at the border of a cell nothing is known so well."""

_SIDE = 3
"""Witnesses along each side of a block."""

_WITNESSES = 8
"""That must have been heard."""

_SIGMAS = 3.0
"""Standard errors by which the best score must stand out, over no agreement and over the place as given: in
the mean of the witnesses, and in how many of them say so."""

_ERROR = 0.15
"""Cells; standard error up to which an offset counts."""


@dataclass(frozen=True, slots=True)
class LabelOffset:
    """How far labels lie beside the image: what a pixel shows is said `rows` down and `cols` right of it."""

    rows: float
    """Pixels of the map."""
    cols: float
    cell: float
    """Pixels of the map that a cell is wide."""
    error: float
    """Standard error, cells; 0: nothing was to be measured."""
    sure: bool
    """Whether it is corrected."""

    @property
    def cells(self) -> tuple[float, float]:
        """Rows and columns, in cells."""
        return self.rows / self.cell, self.cols / self.cell

    @property
    def applied(self) -> tuple[float, float]:
        """Rows and columns by which labels are read elsewhere."""
        return (self.rows, self.cols) if self.sure else (0.0, 0.0)

    def __str__(self) -> str:
        if not self.sure:
            return "labels: no offset against the image that would be sure"
        down, right = self.cells
        return (
            f"labels: they lie {abs(down):.2f} cells {'down' if down > 0 else 'up'} and {abs(right):.2f} "
            f"{'right' if right > 0 else 'left'} of what the image shows; read from there"
        )


NO_OFFSET = LabelOffset(0.0, 0.0, 1.0, 0.0, sure=False)
"""What too few witnesses say."""


@dataclass
class ShiftScores:
    """Agreement of a network with labels at shifted places; blocks come one by one, memory does not grow."""

    cell: float
    """Pixels that a cell is wide."""
    pieces: list[NDArray[np.float64]] = field(default_factory=list)
    """For each witness (2, shift down, shift right): sum of scores, and pixels."""

    @property
    def step(self) -> int:
        """Pixels between the places that are looked at, and between shifts."""
        return max(1, int(self.cell / _PER_CELL))

    @property
    def shifts(self) -> int:
        """Largest shift, in steps."""
        return math.ceil(_REACH * self.cell / self.step)

    @property
    def margin(self) -> int:
        """Pixels around a block of which labels are wanted."""
        return self.shifts * self.step

    def add(self, probabilities: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
        """Hear a block.

        Args:
            probabilities: (class, y, x) of the network alone; 0 in all classes where nothing was seen.
            labels: (y, x) channels or NO_CLASS, `margin` pixels larger on every side.
        """
        step = self.step
        height, width = (n // step for n in probabilities.shape[1:])
        if min(height, width) < _SIDE:
            return
        tiles = probabilities[:, : height * step, : width * step]
        mean = tiles.reshape(len(tiles), height, step, width, step).mean((2, 4), dtype=np.float64)
        near = labels[step // 2 :: step, step // 2 :: step].astype(np.intp)
        near[near == NO_CLASS] = len(tiles)
        rows = np.array_split(np.arange(height), _SIDE)
        cols = np.array_split(np.arange(width), _SIDE)
        for down in rows:
            for right in cols:
                part = mean[:, down[0] : down[-1] + 1, right[0] : right[-1] + 1]
                self.pieces.append(self._scores(part, near[down[0] :, right[0] :]))

    def _scores(self, mean: NDArray[np.float64], near: NDArray[np.intp]) -> NDArray[np.float64]:
        """(2, down, right) of one witness.

        Args:
            mean: (class, y, x) probabilities.
            near: labels from `shifts` places up and left of them on; number of classes where there is none.
        """
        classes, height, width = mean.shape
        seen = mean.sum(0) > 0.5
        above = np.zeros((classes + 1, height, width))  # 0 for pixels without a label
        if seen.any():
            above[:-1] = np.where(seen, mean - mean[:, seen].mean(1)[:, None, None], 0)
        place = np.arange(height * width).reshape(height, width)
        every = 2 * self.shifts + 1
        found = np.zeros((2, every, every))
        for down in range(every):
            for right in range(every):
                label = near[down : down + height, right : right + width]
                found[0, down, right] = above.ravel()[label * seen.size + place].sum()
                found[1, down, right] = np.count_nonzero(seen & (label < classes))
        return found

    def offset(self) -> LabelOffset:
        """What the witnesses say together."""
        pieces = np.array([piece for piece in self.pieces if piece[1].min() > 0])
        if len(pieces) < _WITNESSES:
            return NO_OFFSET
        total = pieces.sum(0)
        best = np.unravel_index((total[0] / total[1]).argmax(), total.shape[1:])
        at, certain = self._peak(total, best)
        others = np.array([self._peak(total - piece, best)[0] for piece in pieces])
        n = len(others)
        error = math.sqrt(float(((others - others.mean(0)) ** 2).sum() * (n - 1) / n)) / self.cell * self.step
        here = pieces[:, 0, self.shifts, self.shifts] / pieces[:, 1, self.shifts, self.shifts]
        there = pieces[:, 0, best[0], best[1]] / pieces[:, 1, best[0], best[1]]
        rows, cols = (at - self.shifts) * self.step
        sure = (
            certain
            and error <= _ERROR
            and math.hypot(rows, cols) >= _LEAST * self.cell
            and _stands_out(there)
            and _stands_out(there - here)
        )
        parts = 64 / self.cell  # of a cell: the last bits of a sum are no offset
        return LabelOffset(round(rows * parts) / parts, round(cols * parts) / parts, self.cell, error, sure)

    def _peak(
        self, total: NDArray[np.float64], best: tuple[np.intp, ...]
    ) -> tuple[NDArray[np.float64], bool]:
        """(2,) steps of the top of a paraboloid around the best shift, and whether it has one inside."""
        score = total[0] / total[1]
        reach = max(1, round(0.75 * self.cell / self.step))
        low = [max(0, int(b) - reach) for b in best]
        high = [min(len(score), int(b) + reach + 1) for b in best]
        y, x = (axis.ravel() for axis in np.mgrid[low[0] : high[0], low[1] : high[1]].astype(float))
        dy, dx = y - best[0], x - best[1]
        terms = np.stack([np.ones_like(dy), dy, dx, dy * dy, dx * dx, dy * dx], 1)
        around = score[low[0] : high[0], low[1] : high[1]].ravel()
        _, gy, gx, yy, xx, yx = np.linalg.lstsq(terms, around, rcond=None)[0]
        curvature = np.array([[2 * yy, yx], [yx, 2 * xx]])
        at = np.array(best, float)
        if not (np.linalg.eigvalsh(curvature) < 0).all():
            return at, False
        move = np.linalg.solve(curvature, [-gy, -gx])
        inside = bool((abs(move) <= reach).all()) and all(0 < b < len(score) - 1 for b in best)
        return at + np.clip(move, -reach, reach), inside


def _stands_out(values: NDArray[np.float64]) -> bool:
    """Whether what witnesses say is above 0 beyond doubt."""
    root = math.sqrt(len(values))
    many = (2 * np.count_nonzero(values > 0) - len(values)) / root  # of a fair coin
    return bool(values.mean() * root >= _SIGMAS * values.std(ddof=1) and many >= _SIGMAS)
