"""Weights of overlapping windows, and the rolling stripes that put them together.

Only the stripes that two windows share are ever kept: f columns of the window to the left, f rows of the
windows above. A row of windows is blended along x, then along y; after it, S rows of output are final.

```
   columns   |<- f ->|<------- S - f ------->|<- f ->|
   left of   | += kept stripe                | kept for the next window, times fall
   this one  | times rise                    |
```
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from citycover.plan.axis import rise


@lru_cache(maxsize=8)
def _ramps(feather: int, device: str) -> tuple[Tensor, Tensor]:
    """(f,) weights that rise, and those that fall beside them."""
    rising = torch.from_numpy(rise(feather)).to(device)
    return rising, 1 - rising


class RowBlender:
    """Blends rows of windows, from left to right and from top to bottom.

    `add` makes final probabilities of the votes of consecutive windows of one row. The floating point
    operations on a pixel depend on the windows that vote on it alone, never on batch or block.
    """

    def __init__(self, feather: tuple[int, int]) -> None:
        """`feather`: (y, x) output pixels."""
        self.feather = feather
        self._left: Tensor | None = None
        self._left_of: int = -1
        self._above: list[tuple[int, Tensor]] = []
        """Stripes of windows that lie side by side, and the index of the first along x."""
        self._below: list[tuple[int, Tensor]] = []

    def next_row(self) -> None:
        """Begin the next row of windows; what the last row kept is now above."""
        self._above, self._below = self._below, []
        self._left, self._left_of = None, -1

    def add(self, votes: Tensor, first: int, last_column: bool, last_row: bool) -> Tensor:
        """Blend the windows `first`, `first + 1`, ... of the current row, in place.

        Args:
            votes: (n, class, S + f, S + f) probabilities where the windows vote. Overwritten.
            first: index of the first of them along x; windows of a row come in rising order, and a window
                that was left out (no valid pixel) counts as zero votes.
            last_column: the last of them ends the raster: it keeps its right stripe and does not fall.
            last_row: the same for their lower stripe.

        Returns:
            (n, class, h, S + f) view of `votes`, h is S, or S + f in the last row. Of it S columns are final,
            and the right f columns of a window that ends the raster; but not the upper f rows and left f
            columns where the window above or to the left was not run because they belong to another block.
        """
        fy, fx = self.feather
        if fx:
            self._blend_columns(votes, first, last_column)
        if fy:
            self._blend_rows(votes, first, last_row)
        return votes[..., : votes.shape[2] - fy * (not last_row), :]

    def _blend_columns(self, votes: Tensor, first: int, last_column: bool) -> None:
        """Rise on the left with the stripe that the left neighbour kept, keep the right stripe falling."""
        fx = self.feather[1]
        rising, falling = _ramps(fx, str(votes.device))
        kept = votes[..., -fx:] * falling  # (n, class, S + f, f)
        left = votes[..., :fx].mul_(rising)
        if self._left is not None and self._left_of == first - 1:
            left[0].add_(self._left)
        if len(votes) > 1:
            left[1:].add_(kept[:-1])  # the right stripe of each onto the left one of the next
        self._left, self._left_of = (None, -1) if last_column else (kept[-1], first + len(votes) - 1)

    def _blend_rows(self, votes: Tensor, first: int, last_row: bool) -> None:
        """The same along y, for windows that are already blended along x."""
        fy, end = self.feather[0], first + len(votes)
        rising, falling = (ramp[:, None] for ramp in _ramps(fy, str(votes.device)))  # (f, 1)
        kept = None if last_row else votes[..., -fy:, :] * falling  # (n, class, f, S + f)
        upper = votes[..., :fy, :].mul_(rising)
        for start, stripes in self._above:
            a, b = max(first, start), min(end, start + len(stripes))
            if a < b:
                upper[a - first : b - first].add_(stripes[a - start : b - start])
        self._above = [(start, stripes) for start, stripes in self._above if start + len(stripes) > end]
        if kept is not None:
            self._below.append((first, kept))
