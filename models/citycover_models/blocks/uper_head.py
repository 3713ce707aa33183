"""UPerHead: pyramid pooling on top, a feature pyramid below.

Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", ECCV,
https://arxiv.org/abs/1807.10221, section 3.1; pyramid pooling from Zhao et al. 2017 (PSPNet).

Notable choices: pooled to 1, 2, 3 and 6 cells a side; every level to 512 channels; bilinear, corners not
aligned; Dropout2d 0.1 before the classifier. Convolutions keep their bias although BatchNorm follows, as in
the network whose parameters are counted against this.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.conv import ConvBnRelu


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """(n, c, y, x) -> rows and columns of `other`, bilinear."""
    size = [other.shape[2], other.shape[3]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class PyramidPooling(nn.Module):
    """A map beside its own means over 1, 2 x 2, 3 x 3 and 6 x 6 cells."""

    def __init__(self, in_channels: int, channels: int, scales: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvBnRelu(in_channels, channels, 1, bias=True))
            for scale in scales
        )
        self.bottleneck = ConvBnRelu(in_channels + len(scales) * channels, channels, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, channels, y, x)."""
        seen: list[Tensor] = [x]
        for scale in self.scales:
            seen.append(resize_like(scale(x), x))  # noqa: PERF401  (TorchScript: no comprehension here)
        return self.bottleneck(torch.cat(seen, dim=1))


class UPerHead(nn.Module):
    """Maps, fine to coarse -> logits on the grid of the finest.

    Args:
        in_channels: of each map.
        num_classes: K.
        channels: inside the head.
        dropout: share of channels dropped before the classifier.
    """

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, channels: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.pooling = PyramidPooling(in_channels[-1], channels)
        self.laterals = nn.ModuleList(ConvBnRelu(c, channels, 1, bias=True) for c in in_channels[:-1])
        self.smooth = nn.ModuleList(ConvBnRelu(channels, channels, 3, bias=True) for _ in in_channels[:-1])
        self.bottleneck = ConvBnRelu(len(in_channels) * channels, channels, 3, bias=True)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(n, c_i, y_i, x_i)] -> (n, k, y_0, x_0)."""
        levels: list[Tensor] = []
        for i, lateral in enumerate(self.laterals):
            levels.append(lateral(maps[i]))
        levels.append(self.pooling(maps[-1]))  # (n, 512, y_i, x_i) each
        for i in range(len(levels) - 1, 0, -1):  # top-down
            levels[i - 1] = levels[i - 1] + resize_like(levels[i], levels[i - 1])
        fused: list[Tensor] = []
        for i, smooth in enumerate(self.smooth):
            fused.append(resize_like(smooth(levels[i]), levels[0]))
        fused.append(resize_like(levels[-1], levels[0]))
        return self.conv_seg(self.dropout(self.bottleneck(torch.cat(fused, dim=1))))
