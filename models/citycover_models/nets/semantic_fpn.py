"""Semantic FPN with Cross-Sensor Normalisation: LoveCS, from airborne labels to spaceborne maps.

Wang et al. 2022, LoveCS, "Cross-sensor domain adaptation for high spatial resolution urban land-cover
mapping", public code and abstract; Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", CVPR,
https://arxiv.org/abs/1901.02446, section 3.1.

    window ─▶ normalise ─▶ ResNet ─ C2..C5 ─ 1x1 ─▶ top-down sums ─ 3x3 ─▶ P2 /4, P3 /8, P4 /16, P5 /32
                                                                            │      │      │       │
                              asymmetric:   (3x3) x 1, then x2, per halving ├─ 1 ──┼─ 1 ──┼── 2 ──┼── 3
                                                                            └──────┴─ mean┴───────┴─▶ /4, 128
      logits /1 ◀─ x4 ◀─ 1x1 ◀──────────────────────────────────────────────────────────────────────────┘

Notable choices, as the public code has them:
- lateral and output convolutions of the pyramid have batch normalisation and no ReLU;
- the decoder takes as many steps as a level needs to reach /4 ("asymmetric"), and the *mean* of all levels;
- bilinear enlargement aligns corners, everywhere;
- batch normalisation keeps statistics for each sensor (`blocks/domain_norm.py`) and is folded to one of them
  when the network is exported: the target, whose imagery is mapped.

citycover's interpretation, where only the paper's text is public:
- the dense multi-scale decoder (`decoder="dense_multiscale"`): every level sees every level, by 1x1
  convolutions to 64 channels, resized and joined, then 3x3 to 128; the mean of the four at /4;
- pseudo-labels are made of averaged probabilities; `score="logit"` averages logits, as the code does.

The encoder's parameters (`encoder.*`) take torchvision's ImageNet weights as they are, before `with_domains`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.conv import ConvBnRelu
from citycover_models.blocks.domain_norm import set_domain, with_domains
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.resnet import ResNet, ResNetVariant
from citycover_models.blocks.sides import check_sides
from citycover_models.imagery.aerial import IMAGENET_RGB, AerialStatistics

SCALES = (2.0, 2.5, 3.0, 3.5)
"""Enlargements of the target imagery: they bracket the ratio of 1.0 m to 0.3 m."""

Decoder = Literal["asymmetric", "dense_multiscale"]


def _enlarge(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=[height, width], mode="bilinear", align_corners=True)


def _conv_bn(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2), nn.BatchNorm2d(channels)
    )


class FeaturePyramid(nn.Module):
    """C2..C5 -> P2..P5, each of `channels`."""

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(_conv_bn(c, channels, 1) for c in in_channels)
        self.outputs = nn.ModuleList(_conv_bn(channels, channels, 3) for _ in in_channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """[(n, c_i, y_i, x_i)] -> [(n, channels, y_i, x_i)], fine to coarse."""
        levels: list[Tensor] = []
        for i, lateral in enumerate(self.laterals):
            levels.append(lateral(maps[i]))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(levels[i], scale_factor=2.0, mode="nearest")
        pyramid: list[Tensor] = []
        for i, output in enumerate(self.outputs):
            pyramid.append(output(levels[i]))
        return pyramid


class _Ascent(nn.Module):
    """3x3 convolutions, each followed by a doubling, for the `halvings` between a level and /4."""

    def __init__(self, in_channels: int, channels: int, halvings: int) -> None:
        super().__init__()
        self.doubles = halvings > 0
        self.steps = nn.ModuleList(
            ConvBnRelu(in_channels if step == 0 else channels, channels) for step in range(max(1, halvings))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, channels, 2^halvings y, 2^halvings x)."""
        for step in self.steps:
            x = step(x)
            if self.doubles:
                x = _enlarge(x, 2 * x.shape[2], 2 * x.shape[3])
        return x


class AsymmetricDecoder(nn.Module):
    """Every level by its own steps to /4; the mean of all."""

    def __init__(self, in_channels: int = 256, channels: int = 128, levels: int = 4) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_Ascent(in_channels, channels, level) for level in range(levels))

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """[(n, c, y_i, x_i)], fine to coarse -> (n, channels, y_0, x_0)."""
        total = torch.zeros_like(pyramid[0][:, :1])
        for level, branch in enumerate(self.branches):
            total = total + branch(pyramid[level])
        return total / len(pyramid)


class DenseMultiScaleDecoder(nn.Module):
    """Every level sees every level; the mean of all at /4."""

    def __init__(self, in_channels: int = 256, channels: int = 128, levels: int = 4) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(in_channels, 64, 1) for _ in range(levels))
        self.fuse = nn.ModuleList(ConvBnRelu(64 * levels, channels) for _ in range(levels))

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """[(n, c, y_i, x_i)], fine to coarse -> (n, channels, y_0, x_0)."""
        reduced: list[Tensor] = []
        for j, reduce in enumerate(self.reduce):
            reduced.append(reduce(pyramid[j]))
        height, width = pyramid[0].shape[2], pyramid[0].shape[3]
        total = torch.zeros_like(pyramid[0][:, :1])
        for i, fuse in enumerate(self.fuse):
            seen: list[Tensor] = []
            for x in reduced:
                seen.append(_enlarge(x, pyramid[i].shape[2], pyramid[i].shape[3]))  # noqa: PERF401  (TorchScript)
            total = total + _enlarge(fuse(torch.cat(seen, dim=1)), height, width)
        return total / len(pyramid)


class SemanticFPN(Learnable):
    """Raw digital numbers -> logits on the same grid; sides are multiples of 32.

    Args:
        variant: encoder.
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
        decoder: `asymmetric`, the public code's; `dense_multiscale`, the paper's.
        domains: sensors with batch statistics of their own; 1: plain batch normalisation.
    """

    def __init__(
        self,
        variant: ResNetVariant = "resnet50",
        num_classes: int = 4,
        *,
        statistics: AerialStatistics = IMAGENET_RGB,
        decoder: Decoder = "asymmetric",
        domains: int = 2,
    ) -> None:
        super().__init__()
        self.multiple = 32
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.encoder = ResNet(variant, len(statistics.mean))
        self.pyramid = FeaturePyramid(self.encoder.dims[1:])
        self.decoder = AsymmetricDecoder() if decoder == "asymmetric" else DenseMultiScaleDecoder()
        self.head = nn.Conv2d(128, num_classes, 1)
        for module in (*self.pyramid.modules(), *self.decoder.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
        if domains > 1:
            with_domains(self, domains)

    def look_as(self, domain: int) -> None:
        """Choose the sensor of what comes next."""
        set_domain(self, domain)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits (n, k, y, x)."""
        check_sides("Semantic FPN", x.shape[2], x.shape[3], self.multiple)
        maps = self.encoder(self.normalise(x))[1:]
        logits = self.head(self.decoder(self.pyramid(maps)))  # (n, k, y/4, x/4)
        return _enlarge(logits, x.shape[2], x.shape[3])


Score = Literal["probability", "logit"]


def scales_between(ratio: float) -> tuple[float, ...]:
    """Enlargements of a target whose pixels are `ratio` times as large as those of the source.

    They bracket the ratio, as the published ones do that of 1.0 m to 0.3 m; where the target is as fine as
    the source, or finer, they bracket 1.

    >>> scales_between(10 / 3), scales_between(1.0)
    ((2.0, 2.5, 3.0, 3.5), (0.75, 1.0, 1.25))
    """
    if ratio <= 1:
        return (0.75, 1.0, 1.25)
    return tuple(round(ratio * share, 2) for share in (0.6, 0.75, 0.9, 1.05))


class MultiScale(nn.Module):
    """Mean scores of a window that a network sees at several enlargements, on the window's own grid.

    Args:
        network: raw (n, b, y, x) in, logits out; sides are brought to the nearest multiples of 32.
        scales: enlargements, 0.5 or more, to hundredths.
        score: what is averaged.
    """

    def __init__(
        self, network: nn.Module, scales: Sequence[float] = SCALES, score: Score = "probability"
    ) -> None:
        super().__init__()
        if min(scales) < 0.5:
            raise ValueError(f"enlargements are 0.5 or more, got {scales}")
        self.network = network
        self.hundredths = [round(100 * scale) for scale in scales]
        self.logits = score == "logit"

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x), sides at least 32 -> (n, k, y, x) mean probabilities or logits."""
        height, width = x.shape[2], x.shape[3]
        scores: list[Tensor] = []
        for scale in self.hundredths:
            # Whole numbers: torch.export keeps them open.
            enlarged = _enlarge(x.float(), _side(height, scale), _side(width, scale))
            logits = self.network(enlarged)
            score = logits if self.logits else logits.softmax(dim=1)
            scores.append(_enlarge(score, height, width))
        return torch.stack(scores).mean(dim=0)


def _side(side: int, hundredths: int) -> int:
    """The multiple of 32 next to an enlarged side."""
    return (side * hundredths + 1600) // 3200 * 32
