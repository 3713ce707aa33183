"""Convolution, batch normalisation, ReLU: what four decoders are made of.

Parameters are named `0.*` and `1.*`. Those of `blocks/sep_aspp.py` have other names in public checkpoints: it
keeps a block of its own.
"""

from __future__ import annotations

from torch import nn


class ConvBnRelu(nn.Sequential):
    """A convolution that keeps the size, BatchNorm, ReLU.

    Args:
        in_channels: of the map.
        channels: of the result.
        kernel: odd side.
        dilation: of the kernel.
        bias: of the convolution, although BatchNorm follows.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 3, *, dilation: int = 1, bias: bool = False
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=dilation, bias=bias),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
