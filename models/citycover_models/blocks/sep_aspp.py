"""Depthwise-separable atrous spatial pyramid without image pooling, as the DAFormer head has it.

Hoyer et al. 2022, "DAFormer: Improving Network Architectures and Training Strategies for Domain-Adaptive
Semantic Segmentation", CVPR, https://arxiv.org/abs/2111.14887, section 3.2; the module itself is that of
DeepLabv3+, Chen et al. 2018, https://arxiv.org/abs/1802.02611.

Notable choices:
- one 1x1 branch and three 3x3 depthwise-separable branches with dilation 6, 12 and 18;
- no pooled branch, so nothing but these convolutions widens what a pixel sees;
- convolutions that stand before batch normalisation have no bias.

Parameters are named as in the public DAFormer checkpoints (`aspp_modules.0.conv.weight`,
`aspp_modules.1.depthwise_conv.bn.running_mean`, `bottleneck.conv.weight`).
"""

from __future__ import annotations

from torch import Tensor, cat, nn
from torch.nn import functional as F


class ConvBnReLU(nn.Module):
    """Convolution that keeps the size, batch normalisation, ReLU; parameters `conv` and `bn`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c', y, x)."""
        return F.relu(self.bn(self.conv(x)))


class SeparableConv(nn.Module):
    """A 3x3 convolution taken apart: each channel by itself, then all channels at each pixel."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBnReLU(in_channels, in_channels, 3, dilation, groups=in_channels)
        self.pointwise_conv = ConvBnReLU(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c', y, x)."""
        return self.pointwise_conv(self.depthwise_conv(x))


class SeparableASPP(nn.Module):
    """Branches side by side, concatenated, brought together by a 3x3 convolution."""

    def __init__(
        self, in_channels: int, channels: int, dilations: tuple[int, int, int] = (6, 12, 18)
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvBnReLU(in_channels, channels, 1)]
        branches += [SeparableConv(in_channels, channels, d) for d in dilations]
        self.aspp_modules = nn.ModuleList(branches)
        self.bottleneck = ConvBnReLU(len(branches) * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, channels, y, x)."""
        views: list[Tensor] = []
        for branch in self.aspp_modules:
            views.append(branch(x))  # noqa: PERF401 - TorchScript has no comprehension over modules
        return self.bottleneck(cat(views, dim=1))
