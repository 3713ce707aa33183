"""Networks of some 50,000 parameters that adapt as the published ones do: for figures in minutes.

They have what the methods ask for, no more: batch normalisation that tells sensors apart, and an encoder
whose last map may be held near its beginning. What they gain says what a method does, not how good a map can
be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.domain_norm import set_domain, with_domains
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.catalogue.preset import AerialBuild, AerialPreset
from citycover_models.catalogue.registry import find_aerial, presets
from citycover_models.imagery.aerial import IMAGENET_RGB, AerialStatistics
from citycover_models.nets.hrda import HRDA, ScaleAttention


def _step(cin: int, cout: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride, dilation, dilation, bias=False), nn.BatchNorm2d(cout), nn.ReLU()
    )


class SmallEncoder(nn.Module):
    """Four convolutions to a quarter of the sides; each output pixel sees 31 x 31."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.steps = nn.Sequential(_step(bands, 24, 2), _step(24, 40, 2), _step(40, 40), _step(40, 40, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(n, band, y, x) -> (n, 40, y/4, x/4)."""
        deepest: Tensor = self.steps(x)
        return deepest


class SmallSensors(Learnable):
    """Semantic FPN's part in LoveCS."""

    def __init__(self, num_classes: int, *, statistics: AerialStatistics) -> None:
        super().__init__()
        self.multiple = 32
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.encoder = SmallEncoder(len(statistics.mean))
        self.head = nn.Conv2d(40, num_classes, 1)
        with_domains(self)

    def look_as(self, domain: int) -> None:
        """Choose the sensor of what comes next."""
        set_domain(self, domain)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, band, y, x) -> logits (n, k, y, x)."""
        logits = self.head(self.encoder(self.normalise(x)))
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)


class SmallHead(nn.Module):
    """Classes of the one map that there is."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(40, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(n, 40, y, x)] -> (n, k, y, x)."""
        scores: Tensor = self.conv_seg(maps[0])
        return scores


class SmallFineGrid(Learnable):
    """DAFormer's part in DASPM."""

    def __init__(self, upscale: int, num_classes: int, *, statistics: AerialStatistics) -> None:
        super().__init__()
        self.multiple = 32
        self.upscale = upscale
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.backbone = SmallEncoder(len(statistics.mean))
        self.decode_head = SmallHead(num_classes)

    def to_fine_grid(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c, u y, u x)."""
        if self.upscale == 1:
            return x
        return F.interpolate(x, scale_factor=float(self.upscale), mode="bicubic", align_corners=False)

    @torch.jit.export
    def encode(self, x: Tensor) -> list[Tensor]:
        """Raw, on the fine grid -> the one map."""
        return [self.backbone(self.normalise(x))]

    @torch.jit.export
    def decode(self, maps: list[Tensor]) -> Tensor:
        """The one map -> logits on the fine grid."""
        return F.interpolate(self.decode_head(maps), scale_factor=4.0, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, band, y, x) -> logits (n, k, u y, u x)."""
        return self.decode([self.backbone(self.to_fine_grid(self.normalise(x)))])


class SmallLevels(nn.Module):
    """The same encoder, its map as the one level of several."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.steps = SmallEncoder(bands).steps

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, band, y, x) -> [(n, 40, y/4, x/4)]."""
        return [self.steps(x)]


class SmallTwoResolutions(HRDA):
    """HRDA's part in DASPM: what it does with a context and its details is its own."""

    def __init__(self, upscale: int, num_classes: int, *, statistics: AerialStatistics) -> None:
        with torch.device("meta"):
            super().__init__("b0", num_classes, upscale=upscale)
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.backbone = SmallLevels(len(statistics.mean))
        self.decode_head = SmallHead(num_classes)
        self.scale_attention = ScaleAttention((40,), num_classes, channels=24)


def register() -> Sequence[str]:
    """Put them beside the presets whose part they take; returns their names."""
    builds: dict[str, AerialBuild] = {
        "semantic-fpn-resnet18": SmallSensors,
        "daspm-b0": partial(SmallFineGrid, 5),
        "daspm-hrda-b0": partial(SmallTwoResolutions, 5),
        "daformer-b0": partial(SmallFineGrid, 1),
    }
    small = [_as(find_aerial(name), f"{name}-small", build) for name, build in builds.items()]
    presets().update({preset.name: preset for preset in small})
    return [preset.name for preset in small]


def _as(preset: AerialPreset, name: str, build: AerialBuild) -> AerialPreset:
    built = partial(build, len(preset.card().channels), statistics=IMAGENET_RGB)
    return replace(preset, name=name, build=built, build_for=build)
