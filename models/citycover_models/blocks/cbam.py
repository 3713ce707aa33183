"""CBAM: a channel gate, then a spatial gate.

Woo et al. 2018, "CBAM: Convolutional Block Attention Module", ECCV, https://arxiv.org/abs/1807.06521,
eq. 1 to 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """sigma(MLP(maxpool x) + MLP(avgpool x)): one number a channel (eq. 2)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        # 1x1 convolutions are the linear layers of the MLP, on (n, c, 1, 1).
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c, 1, 1)."""
        strongest = x.amax(dim=(2, 3), keepdim=True)  # (n, c, 1, 1)
        mean = x.mean(dim=(2, 3), keepdim=True)  # (n, c, 1, 1)
        return torch.sigmoid(self.mlp(strongest) + self.mlp(mean))


class SpatialGate(nn.Module):
    """sigma(conv7x7([max over channels, mean over channels])): one number a pixel (eq. 3)."""

    def __init__(self, kernel: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, 1, y, x)."""
        profile = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)  # (n, 2, y, x)
        return torch.sigmoid(self.conv(profile))


class CBAM(nn.Module):
    """x -> gated x, plus x itself where `residual`.

    The gates follow each other: the spatial one looks at what the channel one let through (eq. 1).
    The channel gate pools over the whole map, so what comes out at a pixel depends on all of the window.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel: int = 7,
        residual: bool = True,
        spatial_bias: bool = False,
    ) -> None:
        super().__init__()
        self.channel = ChannelGate(channels, reduction)
        self.spatial = SpatialGate(kernel, spatial_bias)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c, y, x)."""
        gated = x * self.channel(x)
        gated = gated * self.spatial(gated)
        return gated + x if self.residual else gated
