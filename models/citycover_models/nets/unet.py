"""U-Net on a residual encoder: the plain baseline.

Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI,
https://arxiv.org/abs/1505.04597, figure 1, with the encoder of He et al. 2016 (`blocks/resnet.py`) in the
place of its left side.

    window ─▶ normalise ─▶ ResNet: C1 /2, C2 /4, C3 /8, C4 /16, C5 /32
                                    │      │      │       │       │
      logits /1 ◀─ 1x1 ◀─ 16 ◀─ 32 ◀┴─ 64 ◀┴─128 ◀┴─ 256 ◀┴───────┘      each: x2, concat, twice 3x3-BN-ReLU

Notable choices:
- convolutions are padded, so the output has the size of the input (the paper's shrinks);
- on the way up a map is doubled by nearest neighbour and then convolved, instead of by a transposed
  convolution: no checkerboard;
- the last step, /2 to /1, has no skip: the residual encoder has no map at /1.

The encoder's parameters (`encoder.*`) take torchvision's ImageNet weights as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.resnet import ResNet, ResNetVariant
from citycover_models.blocks.sides import check_sides
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics

_WIDTHS = (256, 128, 64, 32, 16)

_MULTIPLE = 32


class UpBlock(nn.Module):
    """Double the size, join the skip, convolve twice."""

    def __init__(self, in_channels: int, skip: int, channels: int) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(in_channels + skip, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """(n, c, y, x) and (n, s, 2y, 2x) or None -> (n, channels, 2y, 2x)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.convolve(x)


class UNet(Learnable):
    """Raw digital numbers -> logits on the same grid; sides are multiples of 32.

    Args:
        variant: encoder.
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
    """

    def __init__(
        self,
        variant: ResNetVariant = "resnet50",
        num_classes: int = 8,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
    ) -> None:
        super().__init__()
        self.multiple = _MULTIPLE
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.encoder = ResNet(variant, len(statistics.mean))
        c1, c2, c3, c4, c5 = self.encoder.dims
        self.up4 = UpBlock(c5, c4, _WIDTHS[0])
        self.up3 = UpBlock(_WIDTHS[0], c3, _WIDTHS[1])
        self.up2 = UpBlock(_WIDTHS[1], c2, _WIDTHS[2])
        self.up1 = UpBlock(_WIDTHS[2], c1, _WIDTHS[3])
        self.up0 = UpBlock(_WIDTHS[3], 0, _WIDTHS[4])
        self.head = nn.Conv2d(_WIDTHS[4], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits (n, k, y, x)."""
        check_sides("U-Net", x.shape[2], x.shape[3], self.multiple)
        c1, c2, c3, c4, c5 = self.encoder(self.normalise(x))
        y = self.up3(self.up4(c5, c4), c3)
        y = self.up1(self.up2(y, c2), c1)
        return self.head(self.up0(y, None))
