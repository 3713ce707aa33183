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
def _ramp(feather: int, device: str) -> Tensor:
    return torch.from_numpy(rise(feather)).to(device)


class RowBlender:
    """Blends rows of windows, from left to right and from top to bottom.

    `add` takes the votes of consecutive windows of one row and gives back final probabilities. The floating
    point operations on a pixel depend on the windows that vote on it alone, never on batch or block.
    """

    def __init__(self, feather: tuple[int, int]) -> None:
        """`feather`: (y, x) output pixels."""
        self.feather = feather
        self._left: Tensor | None = None
        self._left_of: int = -1
        self._above: dict[int, Tensor] = {}
        self._below: dict[int, Tensor] = {}

    def next_row(self) -> None:
        """Begin the next row of windows; what the last row kept is now above."""
        self._above, self._below = self._below, {}
        self._left, self._left_of = None, -1

    def add(self, votes: Tensor, first: int, last_column: bool, last_row: bool) -> list[Tensor]:
        """Blend the windows `first`, `first + 1`, ... of the current row, in place.

        Args:
            votes: (n, class, S + f, S + f) probabilities where the windows vote. Overwritten.
            first: index of the first of them along x; windows of a row come in rising order, and a window
                that was left out (no valid pixel) counts as zero votes.
            last_column: the last of them ends the raster: it keeps its right stripe and does not fall.
            last_row: the same for their lower stripe.

        Returns:
            One (class, h, w) view of `votes` a window: final, except in the upper f rows and left f columns
            where the window above or to the left was not run because they belong to another block. h is S,
            or S + f in the last row; so is w.
        """
        fy, fx = self.feather
        count, height, width = votes.shape[0], votes.shape[2], votes.shape[3]
        if fx:
            self._blend_columns(votes, first, last_column)
        if fy:
            self._blend_rows(votes, first, last_row)
        final = []
        for k, vote in enumerate(votes.unbind(0)):
            ends_raster = last_column and k == count - 1
            final.append(vote[:, : height - fy * (not last_row), : width - fx * (not ends_raster)])
        return final

    def _blend_columns(self, votes: Tensor, first: int, last_column: bool) -> None:
        """Rise on the left with the stripe that the left neighbour kept, keep the right stripe falling."""
        fx = self.feather[1]
        ramp = _ramp(fx, str(votes.device))
        kept = votes[..., -fx:] * (1 - ramp)  # (n, class, S + f, f)
        votes[..., :fx] *= ramp
        if self._left is not None and self._left_of == first - 1:
            votes[0, ..., :fx] += self._left
        votes[1:, ..., :fx] += kept[:-1]  # the right stripe of each onto the left one of the next
        self._left, self._left_of = (None, -1) if last_column else (kept[-1].clone(), first + len(votes) - 1)

    def _blend_rows(self, votes: Tensor, first: int, last_row: bool) -> None:
        """The same along y, for windows that are already blended along x."""
        fy = self.feather[0]
        ramp = _ramp(fy, str(votes.device))[:, None]  # (f, 1)
        kept = None if last_row else votes[..., -fy:, :] * (1 - ramp)  # (n, class, f, S + f)
        votes[..., :fy, :] *= ramp
        for column, vote in enumerate(votes.unbind(0), first):
            if (above := self._above.pop(column, None)) is not None:
                vote[:, :fy] += above
        if kept is not None:
            self._below.update(enumerate(kept.unbind(0), first))
