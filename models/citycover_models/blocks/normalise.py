"""Normalisation that travels inside the network: raw digital numbers in, standardised bands out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std, band by band, with the statistics kept as buffers of the model file.

    Args:
        mean: one digital number a band, in the order of the network's bands.
        std: one digital number a band, positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ValueError(f"one mean and one positive std a band are needed, got {mean!r} and {std!r}")
        # Annotated here: TorchScript cannot resolve class-level annotations that are strings.
        self.mean: Tensor  # (1, b, 1, 1) digital numbers
        self.std: Tensor  # (1, b, 1, 1) digital numbers
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, b, y, x) digital numbers of any type -> float32 of mean 0, deviation 1."""
        return (x.float() - self.mean) / self.std
