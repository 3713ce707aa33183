"""How bands of 10, 20 and 60 m meet: the encoders of `nets/band_fusion.py`, which tells their source.

An encoder takes the three normalised groups and gives maps at strides 2, 4, ... of the 10 m grid; what turns
them into the vector of a scene (`*Pooled`, `LateLogits`) or into a pyramid (`LatePyramid`) stands below it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.cbam import CBAM
from citycover_models.blocks.efficientnet import EfficientNet, EfficientNetVariant
from citycover_models.blocks.resnet import ResNet

Mode = Literal["early", "intermediate", "late"]

Backbone = Literal["resnet18", "efficientnet-b0", "efficientnet-b5"]

B10 = ("B02", "B03", "B04", "B08")

B20 = ("B05", "B06", "B07", "B8A", "B11", "B12")

B60 = ("B01", "B09")

_REDUCED = 128
"""Channels of a `Reducer`."""


def on_grid_of(x: Tensor, factor: float, like: Tensor) -> Tensor:
    """Bilinear `factor` times finer, then cut or repeated at the far edges to the size of `like`.

    The scale is exactly `factor`, whatever the sizes, so pixels stay where they are on the ground.
    """
    x = F.interpolate(
        x, scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )
    # Looked up, not sliced and padded: whether there is anything to cut would tie an exported graph to it.
    rows = torch.arange(like.shape[2], device=x.device).clamp(max=x.shape[2] - 1)
    cols = torch.arange(like.shape[3], device=x.device).clamp(max=x.shape[3] - 1)
    return x.index_select(2, rows).index_select(3, cols)


def with_even_sides(x: Tensor) -> Tensor:
    """An odd last row or column is repeated, so that a 2x2 convolution of stride 2 sees all pixels."""
    right, down = x.shape[3] % 2, x.shape[2] % 2
    return F.pad(x, [0, right, 0, down], mode="replicate") if down + right > 0 else x


class Reducer(nn.Module):
    """Two strided 2x2 convolutions to 128 channels, pooled to a wanted size."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, _REDUCED, 2, stride=2)
        self.bn1 = nn.BatchNorm2d(_REDUCED)
        self.conv2 = nn.Conv2d(_REDUCED, _REDUCED, 2, stride=2)
        self.bn2 = nn.BatchNorm2d(_REDUCED)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(n, c, y, x) -> (n, 128, height, width)."""
        x = self.conv2(F.relu(self.bn1(self.conv1(x))))  # (n, 128, y/4, x/4)
        return F.relu(self.bn2(F.adaptive_avg_pool2d(x, (height, width))))


class EfficientNetLevels(nn.Module):
    """Five maps at strides 2 to 32: r1..r4 and the head's r6."""

    def __init__(self, name: Backbone, in_channels: int, faithful: bool = False) -> None:
        super().__init__()
        variant: EfficientNetVariant = "b5" if name == "efficientnet-b5" else "b0"
        self.net = EfficientNet(variant, in_channels, static=faithful)
        c = self.net.channels
        self.channels = [c[0], c[1], c[2], c[3], c[5]]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, c, y, x) -> five maps."""
        r = self.net(x)
        return [r[0], r[1], r[2], r[3], r[5]]


class ResNetLevels(nn.Module):
    """Five maps of a ResNet-18 at strides 2 to 32: the stem before its max-pooling, then the four layers."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.net = ResNet("resnet18", in_channels)
        self.channels = list(self.net.dims)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, c, y, x) -> five maps."""
        return self.net(x)


class EarlyResNet(nn.Module):
    """All bands at 10 m into one ResNet-18."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = ResNetLevels(len(B10 + B20 + B60))
        self.channels = self.levels.channels

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> list[Tensor]:
        """Normalised groups -> maps at strides 2 to 32."""
        return self.levels(torch.cat([b10, on_grid_of(b20, 2.0, b10), on_grid_of(b60, 6.0, b10)], dim=1))


class IntermediateResNet(nn.Module):
    """20 m bands join behind the first convolution, 60 m bands behind the first layer.

    The convolution that takes the latter halves the map once more: six maps, at strides 2 to 64.
    """

    def __init__(self, faithful: bool = False) -> None:
        super().__init__()
        self.net = ResNet("resnet18", len(B10))
        self.net.conv1 = nn.Conv2d(len(B10), 64 - len(B20), 7, stride=2, padding=3, bias=False)
        self.join = nn.Conv2d(64 + len(B60), 64, 7, stride=2, padding=3, bias=not faithful)
        self.channels = [64, 64 + len(B60), 64, 128, 256, 512]

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> list[Tensor]:
        """Normalised groups -> maps at strides 2 to 64."""
        x = torch.cat([self.net.conv1(b10), b20], dim=1)  # (n, 58 + 6, y/2, x/2)
        c1 = F.relu(self.net.bn1(x))
        c2 = self.net.layer1(self.net.maxpool(c1))  # (n, 64, y/4, x/4)
        c2 = torch.cat([c2, on_grid_of(b60, 1.5, c2)], dim=1)  # (n, 66, y/4, x/4)
        c3 = self.join(c2)  # (n, 64, y/8, x/8)
        c4 = self.net.layer2(c3)
        c5 = self.net.layer3(c4)
        return [c1, c2, c3, c4, c5, self.net.layer4(c5)]


class JoinedEfficientNet(nn.Module):
    """Early and intermediate fusion with an EfficientNet; the last of its five maps has passed CBAM."""

    def __init__(self, mode: Mode, name: Backbone, faithful: bool = False) -> None:
        super().__init__()
        self.early = mode == "early"
        bands = len(B10 + B20 + B60) if self.early else len(B10)
        self.levels = EfficientNetLevels(name, bands, faithful)
        r1, r2, r3, r4, r6 = self.levels.channels
        c1, c2 = (r1, r2 + 64) if self.early else (r1 + len(B20), r2 + 64 + len(B60))
        self.down = nn.Conv2d(c1, 64, 2, stride=2)
        self.down_bn = nn.BatchNorm2d(64)
        self.reducer = Reducer(c2)
        self.cbam = CBAM(r6 + _REDUCED, spatial_bias=faithful)
        self.channels = [c1, c2, r3, r4, r6 + _REDUCED]

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> list[Tensor]:
        """Normalised groups -> maps at strides 2 to 32."""
        x = b10
        if self.early:
            x = torch.cat([b10, on_grid_of(b20, 2.0, b10), on_grid_of(b60, 6.0, b10)], dim=1)
        r1, r2, r3, r4, r6 = self.levels(x)
        c1 = r1 if self.early else torch.cat([r1, b20], dim=1)  # (n, c1, y/2, x/2)
        a = F.relu(self.down_bn(self.down(with_even_sides(c1))))  # (n, 64, y/4, x/4)
        c2 = torch.cat([r2, a], dim=1)
        if not self.early:
            c2 = torch.cat([c2, on_grid_of(b60, 1.5, r2)], dim=1)
        reduced = self.reducer(c2, r6.shape[2], r6.shape[3])  # (n, 128, y/32, x/32)
        return [c1, c2, r3, r4, self.cbam(torch.cat([r6, reduced], dim=1))]


class LateBranches(nn.Module):
    """Backbones side by side: five maps of the 10 m branch, five of the 20 m branch, the 60 m bands."""

    def __init__(self, name: Backbone, faithful: bool = False) -> None:
        super().__init__()
        self.fine: EfficientNetLevels | ResNetLevels
        self.coarse: EfficientNetLevels | ResNetLevels
        if name == "resnet18":
            self.fine, self.coarse = ResNetLevels(len(B10)), ResNetLevels(len(B20))
        else:
            self.fine = EfficientNetLevels(name, len(B10), faithful)
            self.coarse = EfficientNetLevels("efficientnet-b0", len(B20), faithful)

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> list[Tensor]:
        """Normalised groups -> eleven maps; map 5 + i covers the ground like map i + 1."""
        return self.fine(b10) + self.coarse(b20) + [b60]


class LastPooled(nn.Module):
    """Scene vector of early and intermediate fusion: the mean of the last map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps -> (n, channels)."""
        return maps[-1].mean(dim=(2, 3))


class LatePooled(nn.Module):
    """Scene vector of late fusion with EfficientNets: two or three pooled branches behind CBAM."""

    def __init__(self, branches: LateBranches, faithful: bool = False, sixty: bool = True) -> None:
        super().__init__()
        fine, coarse = branches.fine.channels[-1], branches.coarse.channels[-1]
        self.squeeze = nn.Conv2d(fine, fine, 4, stride=2)
        self.squeeze_bn = nn.BatchNorm2d(fine)
        self.reducer = Reducer(len(B60)) if sixty else None
        self.channels = fine + coarse + (_REDUCED if sixty else 0)
        self.cbam = CBAM(self.channels, spatial_bias=faithful)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of `LateBranches` -> (n, channels)."""
        x10 = F.relu(self.squeeze_bn(self.squeeze(maps[4]))).mean(dim=(2, 3), keepdim=True)
        x20 = maps[9].mean(dim=(2, 3), keepdim=True)
        parts = [x10, x20]
        if self.reducer is not None:
            parts.append(self.reducer(maps[10], 1, 1))
        return self.cbam(torch.cat(parts, dim=1)).flatten(1)  # of (n, channels, 1, 1)


class LateLogits(nn.Module):
    """Scene vector of late fusion with ResNets: 1000 logits of each, and the reduced 60 m bands, if any."""

    def __init__(self, sixty: bool = True) -> None:
        super().__init__()
        self.fc10 = nn.Linear(512, 1000)
        self.fc20 = nn.Linear(512, 1000)
        self.reducer = Reducer(len(B60)) if sixty else None
        self.channels = 2000 + (_REDUCED if sixty else 0)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps of `LateBranches` -> (n, 2128), or (n, 2000)."""
        parts = [self.fc10(maps[4].mean(dim=(2, 3))), self.fc20(maps[9].mean(dim=(2, 3)))]
        if self.reducer is not None:
            parts.append(self.reducer(maps[10], 1, 1).flatten(1))
        return torch.cat(parts, dim=1)


class LatePyramid(nn.Module):
    """Late fusion for the dense head: maps of equal ground size side by side, coarser ones at the last."""

    def __init__(self, branches: LateBranches, attend: bool) -> None:
        super().__init__()
        f, c = branches.fine.channels, branches.coarse.channels
        self.reducer = Reducer(len(B60))
        top = f[4] + c[3] + c[4] + _REDUCED
        self.cbam = CBAM(top) if attend else nn.Identity()
        self.channels = [f[0], f[1] + c[0], f[2] + c[1], f[3] + c[2], top]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of `LateBranches` -> maps at strides 2 to 32."""
        top = maps[4]
        reduced = self.reducer(maps[10], top.shape[2], top.shape[3])
        top = torch.cat([top, maps[8], on_grid_of(maps[9], 2.0, top), reduced], dim=1)
        joined = [torch.cat([maps[i], maps[4 + i]], dim=1) for i in range(1, 4)]
        return [maps[0]] + joined + [self.cbam(top)]  # noqa: RUF005 - TorchScript has no unpacking


class AsTheyAre(nn.Module):
    """Pyramid of early and intermediate fusion: the encoder's own maps."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps -> the same maps."""
        return maps


Encoder = EarlyResNet | IntermediateResNet | JoinedEfficientNet | LateBranches


def make_encoder(mode: Mode, backbone: Backbone, faithful: bool = False) -> Encoder:
    """The encoder of one of the nine combinations, in the form of the public code where it is faithful."""
    if mode == "late":
        return LateBranches(backbone, faithful)
    if backbone == "resnet18":
        return EarlyResNet() if mode == "early" else IntermediateResNet(faithful)
    return JoinedEfficientNet(mode, backbone, faithful)


def make_pool(
    encoder: Encoder, faithful: bool = False, sixty: bool = True
) -> LastPooled | LatePooled | LateLogits:
    """What makes the vector of a scene out of the maps of `encoder`; late fusion can do without 60 m."""
    if not isinstance(encoder, LateBranches):
        return LastPooled(encoder.channels[-1])
    if isinstance(encoder.fine, ResNetLevels):
        return LateLogits(sixty)
    return LatePooled(encoder, faithful, sixty)


def make_pyramid(encoder: Encoder) -> AsTheyAre | LatePyramid:
    """What makes maps of falling size out of the maps of `encoder`."""
    if isinstance(encoder, LateBranches):
        return LatePyramid(encoder, attend=not isinstance(encoder.fine, ResNetLevels))
    return AsTheyAre(encoder.channels)
