"""DAFormer, and DASPM: classes of 2 m out of imagery of 10 m.

Hoyer, Dai and Van Gool 2022, "DAFormer: Improving Network Architectures and Training Strategies for
Domain-Adaptive Semantic Segmentation", CVPR, https://arxiv.org/abs/2111.14887.
DASPM: the public record of "Ubiquitous Spatial Prior Constrained Sub-Pixel Mapping for Fine-Grained Urban
Tree Cover Reconstruction" (IEEE JSTARS) and its repository, whose network is DAFormer's.

    window ─▶ normalise ─▶ [bicubic x5] ─▶ MiT ─┬─ F1 /4  ─ linear 256 ────────┐
                                                ├─ F2 /8  ─ linear 256 ─▶ x2  ─┤
                                                ├─ F3 /16 ─ linear 256 ─▶ x4  ─┼─▶ ASPP ─▶ 1x1 ─▶ x4 ─▶ logits
                                                └─ F4 /32 ─ linear 256 ─▶ x8  ─┘

Notable choices, DAFormer's:
- a Mix Transformer encoder (`blocks/mit.py`), whose features carry over between domains better than a CNN's;
- a head that looks at the context of all four levels at once: every level to 256 channels, stacked at
  stride 4, then a depthwise-separable ASPP with dilation 6, 12, 18 and no image pooling (section 3.2);
- bilinear everywhere, corners not aligned; Dropout2d 0.1 before the classifier.

citycover's interpretation where DASPM's public record is silent (its code holds no super-resolution layer and
its equations are not public):
- sub-pixel mapping means that the *input* is resampled to the grid that is five times finer, bicubic, before
  the network; this agrees with the record's crop of 320 = 5 x 64 px. Pixel (r, c) of 10 m covers rows
  5r..5r+4 and columns 5c..5c+4 of the output: same origin, pixel size divided by 5;
- five classes and five outputs (the published head has seven outputs for five evaluated classes);
- raw numbers are normalised with the statistics of their sensor, ImageNet's for 8-bit RGB and BigEarthNet's
  for Sentinel-2, because the record's x / 255 does not match what the encoder was pre-trained on.

Parameters are named as in the public DAFormer checkpoints (`backbone.*`, `decode_head.*`, without their
leading `model.`), so they load as they are but for `decode_head.conv_seg.*`, which counts the classes of
another task.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.mit import MitVariant, MixTransformer
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.sep_aspp import SeparableASPP
from citycover_models.blocks.sides import check_sides
from citycover_models.imagery.aerial import IMAGENET_RGB
from citycover_models.imagery.sentinel2 import BIGEARTHNET_V1

RGB_BANDS = ("B04", "B03", "B02")
"""Sentinel-2's red, green, blue."""

SUBPIXEL = 5
"""Fine pixels along the side of a coarse one: 10 m / 2 m."""


class Embed(nn.Module):
    """A linear layer over the channels of a map."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, channels, y, x)."""
        return self.proj(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def stacked(levels: list[Tensor]) -> Tensor:
    """[(n, c, y, x), (n, c, y/2, x/2), ...] -> all channels at the size of the first, bilinear."""
    size = levels[0].shape[2:]
    alike = [F.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in levels[1:]]
    return torch.cat(levels[:1] + alike, dim=1)


class DAFormerHead(nn.Module):
    """Context-aware fusion of the four levels (section 3.2): maps -> logits at stride 4."""

    def __init__(
        self, dims: Sequence[int], num_classes: int, channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embed_layers = nn.ModuleList(Embed(dim, channels) for dim in dims)
        self.fuse_layer = SeparableASPP(len(dims) * channels, channels)
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]  # this convolution has one

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[(n, d_i, y / 2^(i+1), x / 2^(i+1)) for i = 1..4] -> (n, k, y/4, x/4)."""
        levels: list[Tensor] = []
        for i, embed in enumerate(self.embed_layers):
            levels.append(embed(maps[i]))
        x = self.fuse_layer(stacked(levels))  # (n, 1024, y/4, x/4) -> (n, 256, y/4, x/4)
        return self.conv_seg(self.dropout(x))


class DAFormer(Learnable):
    """Raw digital numbers -> logits, on a grid that is `upscale` times finer than the input's.

    `upscale` 1 is DAFormer, 5 is DASPM.
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
        super().__init__()
        self.multiple = 32
        """Sides of windows are multiples of this; 5 has no factor 2, so the fine grid asks for no other."""
        self.upscale = upscale
        self.normalise = Normalise(mean, std)
        self.backbone = MixTransformer(variant, in_channels=len(mean))
        self.decode_head = DAFormerHead(self.backbone.dims, num_classes)

    def to_fine_grid(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c, u y, u x), pixel (r, c) at the middle of block (u r.., u c..)."""
        if self.upscale == 1:
            return x
        return F.interpolate(x, scale_factor=float(self.upscale), mode="bicubic", align_corners=False)

    @torch.jit.export
    def features(self, x: Tensor) -> list[Tensor]:
        """Raw (n, c, y, x) -> the encoder's maps F1..F4 on the fine grid, for `feature_distance`."""
        check_sides("DAFormer", x.shape[2], x.shape[3], self.multiple)
        return self.backbone(self.to_fine_grid(self.normalise(x)))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Raw (n, c, y, x) that lie on the fine grid already -> F1..F4."""
        maps: list[Tensor] = self.backbone(self.normalise(x))
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        """F1..F4 -> logits (n, k, y, x) on the fine grid."""
        return self.upsampled(self.decode_head(maps))

    def upsampled(self, logits: Tensor) -> Tensor:
        """(n, k, y/4, x/4) -> (n, k, y, x)."""
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, c, y, x) -> logits (n, k, u y, u x).

        Raises:
            ModelError: a side is no multiple of 32.
        """
        return self.decode(self.features(x))


def feature_distance(
    features: Tensor,
    reference: Tensor,
    labels: Tensor,
    num_classes: int,
    things: Sequence[int] | None = None,
    min_share: float = 0.75,
) -> Tensor:
    """ImageNet feature distance L_FD (eq. 9 to 11): how far the encoder has left its pre-training.

    Where no position is kept this is 0; the published code logs NaN there.

    Args:
        features: (n, d, y/s, x/s) F4 of the network that learns; s is 32, or 64 of a context of half the
            resolution.
        reference: (n, d, y/s, x/s) F4 of the frozen pre-trained encoder.
        labels: (n, y, x) classes 0..k-1; anything else is ignored.
        num_classes: k.
        things: classes whose features are worth keeping (ImageNet knows objects, not surfaces); None: every
            position counts, labelled or not.
        min_share: a position is kept where its majority class covers at least this share of s x s px.

    Returns:
        () mean Euclidean distance over channels.
    """
    distance = torch.linalg.vector_norm(features - reference, dim=1)  # (n, y/s, x/s)
    if things is None:
        return distance.mean()
    known = (labels >= 0) & (labels < num_classes)
    one_hot = F.one_hot(labels.where(known, num_classes).long(), num_classes + 1)[..., :num_classes]
    stride = labels.shape[2] // features.shape[3]  # s
    shares = F.avg_pool2d(one_hot.permute(0, 3, 1, 2).to(distance.dtype), stride)  # (n, k, y/s, x/s)
    share, majority = shares.max(dim=1)
    kept = (share >= min_share) & torch.isin(majority, torch.tensor(list(things), device=labels.device))
    return (distance * kept).sum() / kept.sum().clamp(min=1)


def abundances(probabilities: Tensor, factor: int = SUBPIXEL) -> Tensor:
    """(n, k, u y, u x) on the fine grid -> (n, k, y, x), share of each class in a coarse pixel."""
    return F.avg_pool2d(probabilities, factor)


def daspm(
    variant: MitVariant = "b5", boa_offset: float = 0.0, network: type[DAFormer] = DAFormer
) -> DAFormer:
    """DASPM for raw Sentinel-2 numbers: red, green, blue of 10 m -> five classes of 2 m.

    Args:
        variant: encoder.
        boa_offset: what the digital numbers carry on top of reflectance x 10000 (1000 since baseline 04.00).
        network: DAFormer, or HRDA.
    """
    mean, std = BIGEARTHNET_V1.of(RGB_BANDS, boa_offset)
    return network(variant, upscale=SUBPIXEL, mean=mean, std=std)
