"""Where a place has outlived its labels: the network is sure of something else, in a connected way.

A pixel that contradicts its label is a roof in a green cell; a cell of them is a label that is wrong; only
where most of the cells around say so as well has the place changed since:

    gone      the network is sure that a label is not here: over one cell around the pixel, what labels say
              has less than a quarter of the chance that the best class of each pixel has
    share     of the surroundings that is gone, a square of _CLEAN cells, of _NOISY where labels are noisy
    lost      trust in the labels there: none below three ninths of it, all from five on

Of a wrong cell that has right ones around it little is gone: its middle, a fifth. Labels of a class that the
network cannot tell from others are never gone.

All of it is looked at inside of the part of the image that one window votes on, and `lost` is blended between
windows as probabilities are. So it needs nothing that a sweep does not have at hand, and no block, worker or
kill changes a pixel. Sums are of whole numbers: no order changes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from citycover.errors import ConfigError
from citycover.evidence.cells import Sheet
from citycover.evidence.chances import STEPS, Chances
from citycover.evidence.field import LABELLED, LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.geometry.grid import pixel_ground_size
from citycover.geometry.window import Window

_DOUBT = 4
"""Times the network must hold more of something else."""

_CLEAN, _NOISY = 3, 5
"""Side of the surroundings in cells; in between as the rule goes from clean labels to noisy ones."""

_WITNESSES = 5
"""Rows and columns of pixels of a cell that are looked at, about; of large cells not every pixel is."""

_TOLD = 0.5
"""Slope from which on a network can tell a class from the others."""


class ChangeField(LabelField):
    """Labels beside a network that lose their trust where the place has changed.

    Behind the planes of the classes stands one more: the trust that was lost, 0 to 1, and -1 without a label.
    """

    def __init__(self, labels: LabelEvidence, grid: GeoBox, device: torch.device) -> None:
        """Open the sheets; see `LabelField`."""
        super().__init__(labels, grid, device)
        told = [known >= _TOLD for known in labels.known]
        self._untold = (~torch.tensor(told, device=device)).float().mul_(STEPS).view(-1, 1, 1)
        self._chances = Chances(labels.odds, labels.prior, device)
        cells = _CLEAN + (_NOISY - _CLEAN) * labels.rule.doubt
        sides = _cell_sides(labels.sheets, grid)
        self._step = max(1, round(min(sides) / _WITNESSES))
        self._cell, self._around = ([int(side * n / 2 / self._step) for side in sides] for n in (1, cells))

    def watch(self, probabilities: Tensor, window: Window, seen: NDArray[np.bool_]) -> Tensor:
        """(y, x) trust that labels lose, 0 to 1, by what one window of the network says alone.

        Args:
            probabilities: (c, y, x) float32 where it votes.
            window: the pixels of output that they are of; may begin and end outside of the map.
            seen: (y, x) where the image is valid.
        """
        step, (height, width) = self._step, seen.shape
        counted = torch.tensor(seen[::step, ::step], device=self.device)
        against = torch.zeros(counted.shape, dtype=torch.int32, device=self.device)
        for tile, planes in self._said(window, None):
            at, within, inside = _every(step, tile.shift(-window.row, -window.col))
            *weights, labelled = planes[:, *inside]
            counted[at] &= labelled > LABELLED
            chances = self._chances(probabilities[:, *within])
            held = _at_largest(weights, torch.maximum(chances, self._untold))
            against[at] = chances.amax(0).sub_(held.mul_(_DOUBT)).int()
        gone = counted & (_sums(against.mul_(counted), self._cell) > 0)
        half = math.prod(2 * reach + 1 for reach in self._around) // 2
        share = _sums(gone.int(), self._around) / _sums(counted.int(), self._around).clamp_(min=half)
        lost = share.mul_(4.5).sub_(1.5).clamp_(0, 1)
        return lost.repeat_interleave(step, 0)[:height].repeat_interleave(step, 1)[:, :width]

    def __call__(self, planes: Tensor, window: Window) -> Tensor:
        """Put the labels' evidence to the network's, as far as they are trusted, in place.

        Args:
            planes: (c + 1, y, x) float32, blended: probabilities, and what `watch` gave.
            window: the pixels of output that they are of.

        Returns:
            What was given, with the trust that was lost in the last plane, -1 where there is no label.
        """
        for tile, said in self._said(window, self._mix):
            part = planes[:, *tile.shift(-window.row, -window.col).slices]
            self._weigh(part[:-1], said, part[-1])
            part[-1].masked_fill_(said[-1] <= LABELLED, -1)
        return planes


def check_windows(sheets: Sequence[Sheet], grid: GeoBox, votes: int) -> None:
    """Whether a window sees enough cells for what is connected to show.

    Args:
        sheets: of labels that are watched.
        grid: of the map.
        votes: pixels of output along the shorter side of what a window votes on.

    Raises:
        ConfigError: it does not.
    """
    cell = max(_cell_sides(sheets, grid))
    if votes < _NOISY * cell:
        raise ConfigError(
            f"--change looks at {_NOISY} cells of the labels across, {_NOISY * cell:.0f} px of the map, and "
            f"a window votes on {votes}; give --window so much more, or leave out --change"
        )


def _cell_sides(sheets: Sequence[Sheet], grid: GeoBox) -> list[float]:
    """[y, x] pixels of output along a cell, of the coarsest sheet."""
    pixel = pixel_ground_size(grid)
    cells = [pixel_ground_size(sheet.grid) for sheet in sheets]
    return [max(cell[axis] for cell in cells) / pixel[axis] for axis in (0, 1)]


Part = tuple[slice, slice]


def _every(step: int, part: Window) -> tuple[Part, Part, Part]:
    """Each `step`-th pixel of a window that lies in a part: among all such, in the window, in the part."""
    ends = ((part.row, part.row_end), (part.col, part.col_end))
    first = [-(-low // step) for low, _ in ends]
    among = tuple(slice(k, -(-end // step)) for k, (_, end) in zip(first, ends, strict=True))
    within = tuple(slice(k * step, end, step) for k, (_, end) in zip(first, ends, strict=True))
    inside = tuple(slice(k * step - low, None, step) for k, (low, _) in zip(first, ends, strict=True))
    return (among[0], among[1]), (within[0], within[1]), (inside[0], inside[1])


def _at_largest(weights: Sequence[Tensor], planes: Tensor) -> Tensor:
    """(y, x) of (c, y, x) planes, at the class of the largest weight; of equal ones the first."""
    largest, found = weights[0], planes[0]
    for weight, plane in zip(weights[1:], planes[1:], strict=True):
        found = torch.where(weight > largest, plane, found)
        largest = torch.maximum(largest, weight)
    return found


def _sums(counts: Tensor, reach: list[int]) -> Tensor:
    """(y, x) int32 sums over the pixels up to (y, x) `reach` away, of those that there are."""
    for axis, far in enumerate(reach):
        length = counts.shape[axis]
        sums = counts.cumsum(axis, dtype=torch.int32)
        at = torch.arange(length, device=counts.device)
        last, before = (at + far).clamp_(max=length - 1), at - far - 1
        outside = (before < 0).unsqueeze(1 - axis)
        less = sums.index_select(axis, before.clamp_(min=0)).masked_fill_(outside, 0)
        counts = sums.index_select(axis, last).sub_(less)
    return counts
