"""What a network's probabilities are worth as chances, in whole steps.

A network that learned for minutes from noisy labels is right far more often than it says, and another one far
less; the `odds` that were measured on labels of the place mend that. They are looked up: a logarithm rounds
differently on every device, and in the last numbers of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.evidence.slopes import Odds

STEPS = 255
"""Of a chance of 1."""

_BITS = 18
"""Of a float32 that are left out: 32 places from any probability to twice that."""

_LEAST, _MOST = 107 << (23 - _BITS), 127 << (23 - _BITS)
"""Places of 2^-20, which stands for all below, and of 1."""


class Chances:
    """A table of chances for each class."""

    def __init__(self, odds: Sequence[Odds], prior: Sequence[float], device: torch.device) -> None:
        """Fill the tables.

        Args:
            odds: (class,) what the network's word is worth; empty: what it says.
            prior: (class,) mean probability of the network; a class of 0 has no chance.
            device: of the probabilities.
        """
        worth: Sequence[Odds | None] = odds or [None] * len(prior)
        tables = [_table(pair, share) for pair, share in zip(worth, prior, strict=True)]
        self._places = len(tables[0])
        self._table = torch.from_numpy(np.concatenate(tables)).to(device)
        first = torch.arange(len(tables), dtype=torch.int32, device=device)
        self._first = first.mul_(self._places).view(-1, 1, 1)

    def __call__(self, probabilities: Tensor) -> Tensor:
        """(class, y, x) probabilities -> as many whole numbers from 0 to STEPS, float32."""
        place = (probabilities.view(torch.int32) >> _BITS).sub_(_LEAST).clamp_(0, self._places - 1)
        return self._table.index_select(0, place.add_(self._first).flatten()).view(place.shape)


def _table(odds: Odds | None, prior: float) -> NDArray[np.float32]:
    """(place,) steps of the chance of a class."""
    patterns = (np.arange(_LEAST, _MOST + 1, dtype=np.int32) << _BITS) + (1 << (_BITS - 1))
    patterns[-1] = _MOST << _BITS  # 1 itself
    p = patterns.view(np.float32).astype(np.float64)
    if prior == 0:
        chance = np.zeros_like(p)
    elif odds is None:
        chance = p
    else:
        slope, base = odds
        chance = 1 / (1 + np.exp(-np.clip(slope * np.log(p / prior) + base, -30, 30)))
    return (STEPS * chance).round().astype(np.float32)
