"""The cascaded upsampler (CUP) that Paraformer and VCNet share.

Chen et al. 2021, "TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation",
https://arxiv.org/abs/2102.04306, section 3.2, as the authors of Paraformer changed it:

    tokens /16 ─ 3x3, 512 ─┬─ 3x3, 512 ─ x4 ─┬─ 3x3, 640 ─ x2 ─┐
             encoder /16 ──┘   encoder /4 ───┘   encoder /2 ───┴─▶ Z, half resolution

Every 3x3 convolution is followed by BatchNorm and ReLU; upsampling is bilinear with aligned corners.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.conv import ConvBnRelu


def upsample(x: Tensor, factor: int) -> Tensor:
    """(n, c, y, x) -> (n, c, f y, f x), bilinear, the corner pixels' centres laid on each other."""
    size = [x.shape[2] * factor, x.shape[3] * factor]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class DecoderCup(nn.Module):
    """Tokens and the encoder's maps -> Z at half resolution.

    Args:
        tokens: channels of the tokens.
        half: channels of the encoder's map at /2 (128 L).
        deep: channels of its maps at /4 and /16.
        channels: of the convolutions at /16, /16 and /4.
    """

    def __init__(
        self, tokens: int, half: int, deep: int = 1024, channels: tuple[int, int, int] = (512, 512, 640)
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.out_channels = third + half
        """Channels of Z."""
        self.from_tokens = ConvBnRelu(tokens, first)
        self.at_16 = ConvBnRelu(first + deep, second)
        self.at_4 = ConvBnRelu(second + deep, third)

    def forward(self, tokens: Tensor, maps: list[Tensor]) -> Tensor:
        """Tokens (n, d, y/16, x/16) and the encoder's maps at /1, /2, /4, /16 -> (n, z, y/2, x/2)."""
        x = torch.cat([self.from_tokens(tokens), maps[3]], dim=1)  # (n, 512 + 1024, y/16, x/16)
        x = upsample(self.at_16(x), 4)  # (n, 512, y/4, x/4)
        x = self.at_4(torch.cat([x, maps[2]], dim=1))  # (n, 512 + 1024, y/4, x/4) -> (n, 640, y/4, x/4)
        return torch.cat([upsample(x, 2), maps[1]], dim=1)  # (n, 640 + 128 L, y/2, x/2)


class DecoderBranch(nn.Module):
    """Z -> a map at full resolution."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = ConvBnRelu(in_channels, channels)

    def forward(self, z: Tensor) -> Tensor:
        """(n, z, y/2, x/2) -> (n, c, y, x)."""
        return upsample(self.conv(z), 2)
