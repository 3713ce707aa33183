"""Residual networks, ResNet-18 and ResNet-50, as encoders.

He et al. 2016, "Deep Residual Learning for Image Recognition", CVPR, https://arxiv.org/abs/1512.03385,
table 1.

    x ─ 7x7 s2 ─ BN ─ ReLU ─ maxpool s2 ─ layer1 ─┬─ layer2 ─┬─ layer3 ─┬─ layer4 ─┐
                         C1 /2               C2 /4      C3 /8      C4 /16      C5 /32

Notable choices:
- in a bottleneck the 3x3 convolution strides, not the first 1x1 ("v1.5"), as in torchvision, whose public
  weights are what users have;
- where the size or the number of channels changes, the shortcut is a 1x1 convolution with batch
  normalisation (option B of section 3.3);
- convolutions have no bias, batch normalisation follows each of them.

Parameters are named as in torchvision's ImageNet weights (`conv1.weight`, `layer1.0.conv1.weight`,
`layer2.0.downsample.1.running_var`, `fc.bias`), which load as they are. An encoder without classes has no
`fc`; for another number of bands `conv1.weight` has another shape.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ResNetVariant = Literal["resnet18", "resnet50"]

STEM_WIDTH = 64
"""Channels of C1."""

_PLANES = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, planes, y/stride, x/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the planes, beside a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, 4 planes, y/stride, x/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x))


ResNetBlock = type[BasicBlock] | type[Bottleneck]

_VARIANTS: dict[ResNetVariant, tuple[ResNetBlock, tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}

RESNET_VARIANTS: tuple[ResNetVariant, ...] = tuple(_VARIANTS)


def residual_layer(
    block: ResNetBlock, in_channels: int, planes: int, blocks: int, stride: int
) -> nn.Sequential:
    """`blocks` blocks one after another, the first of which strides: one row of table 1."""
    out_channels = planes * block.expansion
    first = block(in_channels, planes, stride)
    return nn.Sequential(first, *(block(out_channels, planes) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """Normalised bands -> the five maps C1..C5; with `num_classes` also a classifier of scenes.

    Args:
        variant: "resnet18" or "resnet50".
        in_channels: bands.
        num_classes: width of `fc`; None: an encoder that has none.
    """

    def __init__(
        self, variant: ResNetVariant = "resnet50", in_channels: int = 3, num_classes: int | None = None
    ) -> None:
        super().__init__()
        block, depths = _VARIANTS[variant]
        self.dims = (STEM_WIDTH, *(planes * block.expansion for planes in _PLANES))
        """Channels of C1..C5."""
        self.conv1 = nn.Conv2d(in_channels, STEM_WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_layer(block, self.dims[0], _PLANES[0], depths[0], stride=1)
        self.layer2 = residual_layer(block, self.dims[1], _PLANES[1], depths[1], stride=2)
        self.layer3 = residual_layer(block, self.dims[2], _PLANES[2], depths[2], stride=2)
        self.layer4 = residual_layer(block, self.dims[3], _PLANES[3], depths[3], stride=2)
        self.fc = nn.Identity() if num_classes is None else nn.Linear(self.dims[4], num_classes)
        self.apply(_init)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, b, y, x) -> [(n, d_i, y / 2^i, x / 2^i) for i = 1..5], odd sides rounded up."""
        c1 = F.relu(self.bn1(self.conv1(x)))
        c2 = self.layer1(self.maxpool(c1))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return [c1, c2, c3, c4, c5]

    @torch.jit.export
    def classify(self, x: Tensor) -> Tensor:
        """(n, b, y, x) -> logits of the scene (n, k); without `fc` the pooled features (n, d_5)."""
        return self.fc(self.forward(x)[4].mean(dim=(2, 3)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def _init(module: nn.Module) -> None:
    """He et al. 2015, fan out, as torchvision has it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
