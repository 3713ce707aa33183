"""HRDA: DAFormer that looks twice, at a wide context of half the resolution and at details of all of it.

Hoyer, Dai and Van Gool 2022, "HRDA: Context-Aware High-Resolution Domain-Adaptive Semantic Segmentation",
ECCV, https://arxiv.org/abs/2204.13132.

    window ─▶ normalise ─▶ [bicubic x5] ─┬─ mean of 2 x 2 ─▶ DAFormer ─┬─ logits ─▶ x2 ── x (1 - a) ─┐
                                         │                             └─ light head ─▶ x2 ─▶ a      + ─▶ x4
                                         └─ crops of half the sides ─▶ DAFormer ─ logits, laid ─ x a ┘

Notable choices, HRDA's:
- one DAFormer for both resolutions: objects are seen at two sizes by the same weights;
- attention `a` of a light head on the maps of the context, each class by itself: large things by the context,
  small ones by the details (section 3.3);
- a step of training looks at one crop of details, drawn at random, and `a` is 0 around it; whoever maps or
  teaches looks at all: crops overlap by half, and their logits are averaged (section 3.4).

citycover's interpretation where the public record leaves it open: the crop is half of the window, whatever
the window, as 512 of 1024 px are; nine crops at steps of a quarter cover it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.mit import MitVariant
from citycover_models.blocks.sep_aspp import ConvBnReLU
from citycover_models.blocks.sides import check_sides
from citycover_models.imagery.aerial import IMAGENET_RGB
from citycover_models.nets.daformer import DAFormer, Embed, stacked

_STEP = 8
"""Crops of details begin at multiples of this: pixels of the fine grid in one of the context's logits."""


class ScaleAttention(nn.Module):
    """The light head, SegFormer's: maps -> share of the details for each class."""

    def __init__(self, dims: Sequence[int], num_classes: int, channels: int = 256) -> None:
        super().__init__()
        self.embed_layers = nn.ModuleList(Embed(dim, channels) for dim in dims)
        self.fuse_layer = ConvBnReLU(len(dims) * channels, channels, 1)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(n, d_i, y / 2^(i+1), x / 2^(i+1)) for i = 1..4] -> (n, k, y/4, x/4) in 0..1."""
        levels: list[Tensor] = []
        for i, embed in enumerate(self.embed_layers):
            levels.append(embed(maps[i]))
        return torch.sigmoid(self.conv_seg(self.fuse_layer(stacked(levels))))


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a network makes of a context and of one crop of details."""

    maps: list[Tensor]
    """For `decode`."""
    logits: Tensor
    """(n, k, y/2, x/2) of the crop."""
    rows: slice
    """Where it lies."""
    columns: slice


class HRDA(DAFormer):
    """Raw digital numbers -> logits, on a grid that is `upscale` times finer than the input's.

    Parameters are DAFormer's, so its checkpoints load, and those of `scale_attention`.
    """

    def __init__(
        self,
        variant: MitVariant = "b5",
        num_classes: int = 5,
        *,
        upscale: int = 1,
        mean: Sequence[float] = IMAGENET_RGB.mean,
        std: Sequence[float] = IMAGENET_RGB.std,
    ) -> None:
        super().__init__(variant, num_classes, upscale=upscale, mean=mean, std=std)
        self.multiple = 64
        """Of a crop of details, half as long, 32."""
        self.scale_attention = ScaleAttention(self.backbone.dims, num_classes)

    def context(self, x: Tensor) -> list[Tensor]:
        """Normalised (n, c, y, x) on the fine grid -> F1..F4 of half the resolution."""
        maps: list[Tensor] = self.backbone(F.avg_pool2d(x, 2))
        return maps

    def details(self, x: Tensor) -> Tensor:
        """Normalised (n, c, y, x) on the fine grid -> logits (n, k, y/4, x/4), mean of crops that overlap."""
        height, width = x.shape[2] // 4, x.shape[3] // 4
        crops: list[Tensor] = []
        for i in range(3):
            for j in range(3):
                rows = x[:, :, i * height : (i + 2) * height]
                crops.append(rows[:, :, :, j * width : (j + 2) * width])
        logits: Tensor = self.decode_head(self.backbone(torch.cat(crops)))  # (9 n, k, y/8, x/8)
        parts = logits.unflatten(0, (9, x.shape[0]))
        height, width = height // 4, width // 4
        total = F.pad(parts[0], (0, 2 * width, 0, 2 * height))
        for i in range(3):
            for j in range(3):
                if i + j > 0:
                    sides = (j * width, (2 - j) * width, i * height, (2 - i) * height)
                    total = total + F.pad(parts[3 * i + j], sides)
        return total / (_times_seen(height, x)[:, None] * _times_seen(width, x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Raw (n, c, y, x) that lie on the fine grid already -> details, where there are any, F1..F4."""
        return self._seen(self.normalise(x))

    @torch.jit.export
    def features(self, x: Tensor) -> list[Tensor]:
        """Raw (n, c, y, x) -> details, where there are any, F1..F4 of the context."""
        check_sides("HRDA", x.shape[2], x.shape[3], self.multiple)
        return self._seen(self.to_fine_grid(self.normalise(x)))

    def _seen(self, x: Tensor) -> list[Tensor]:
        maps = self.context(x)
        return [self.details(x), torch.ones_like(maps[0][:1, :1])] + maps  # noqa: RUF005 - TorchScript unpacks no list

    def glimpse(self, x: Tensor) -> Glimpse:
        """Raw (n, c, y, x) that lie on the fine grid already -> what one step of training looks at."""
        x = self.normalise(x)
        maps, (height, width) = self.context(x), x.shape[2:]
        top, left = (_STEP * int(torch.randint(side // 2 // _STEP + 1, ())) for side in (height, width))
        rows, columns = slice(top, top + height // 2), slice(left, left + width // 2)
        logits: Tensor = self.decode_head(self.backbone(x[:, :, rows, columns]))
        sides = (left, width - columns.stop, top, height - rows.stop)
        seen = torch.ones_like(logits[:1, :1, ::2, ::2])
        laid = [F.pad(part, [side // by for side in sides]) for part, by in ((logits, 4), (seen, 8))]
        return Glimpse([*laid, *maps], self.upsampled(logits), rows, columns)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Of `encode` -> logits (n, k, y, x) on the fine grid: (1 - a) of the context, a of the details."""
        share = maps[1] * self.scale_attention(maps[2:])  # (n, k, y/8, x/8)
        coarse = (1 - share) * self.decode_head(maps[2:])
        return self.upsampled(_twice(coarse) + _twice(share) * maps[0])


def _times_seen(quarter: int, like: Tensor) -> Tensor:
    """How many of three crops, a quarter apart, cover each place along a side."""
    edge = torch.ones(quarter, dtype=like.dtype, device=like.device)
    return torch.cat([edge, 2 * edge, 2 * edge, edge])


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
