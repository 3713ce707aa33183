"""Entropy of class probabilities from a table: the same on every device, and in every place of a tensor.

A logarithm rounds differently on every device, and in the last numbers of a row; a table does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_BITS = 13
"""Low bits of the pattern that an entropy does not depend on: ten of the mantissa are left."""

_LEAST = (127 - 24) << (23 - _BITS)
"""Upper bits of 2**-24, below which a probability counts as that."""


def entropy(patterns: Sequence[Tensor], exclusive: bool) -> Tensor:
    """Entropy of each pixel, 0 where one class is certain, 1 where all are alike.

    Args:
        patterns: of each class, planes of int32 patterns of float32 probabilities.
        exclusive: a pixel is of one class, and probabilities sum to one; else it may be of several, and its
            entropy is the mean of each class's own.
    """
    first = patterns[0]
    table = _entropies(len(patterns), exclusive, str(first.device))
    total = torch.zeros(first.shape, device=first.device)
    for pattern in patterns:
        index = (pattern >> _BITS).sub_(_LEAST).clamp_(0, len(table) - 1)
        total += table.index_select(0, index.flatten()).view(total.shape)
    return total


@lru_cache(maxsize=8)
def _entropies(channels: int, exclusive: bool, device: str) -> Tensor:
    """What a class adds to the entropy of a pixel, by the upper bits of its probability."""
    last = 127 << (23 - _BITS)
    patterns = (np.arange(_LEAST, last + 1, dtype=np.int32) << _BITS) + (1 << (_BITS - 1))
    patterns[-1] = last << _BITS  # 1 itself
    p = patterns.view(np.float32).astype(np.float64)
    own = -p * np.log(p)
    if exclusive:
        found = own / math.log(max(channels, 2))
    else:
        q = 1 - p
        found = (own - q * np.log(np.where(q > 0, q, 1))) / math.log(2) / channels
    return torch.from_numpy(found.astype(np.float32)).to(device)
