"""ViT-CoMer: a plain ViT and a convolutional pyramid that talk to each other.

Xia et al. 2024, "ViT-CoMer: Vision Transformer with Convolutional Multi-scale Feature Interaction for Dense
Predictions", CVPR, https://arxiv.org/abs/2403.07392, section 3; VCNet's "ViT_FuseX" is this network under
another name, fed with tokens from outside.

    map ─▶ pyramid ─┬─ c1 /4 ──────────────────────────────────────────────────────────┐
                    ├─ c2 /8  ┐                                                          │
                    ├─ c3 /16 ├ c ─▶ MRFP ─┬─ to ViT ─┐        ┌─ to CNN ─▶ c ─▶ ...  ─┤─▶ f1..f4
                    └─ c4 /32 ┘            └──────────┼────────┤                         │
    tokens ───────────────────────────────▶ x ─ (+) ──┴─ 3 blocks ─▶ x ─▶ ... ───────────┘

Notable choices:
- the three coarser levels of the pyramid are one sequence c of tokens; every exchange is deformable attention
  over all three (`blocks/deform_attn.py`), each cell around its own centre;
- MRFP, multi-receptive-field pyramid: depthwise 3x3 on one half of the channels and 5x5 on the other;
- what goes to the ViT is scaled by gamma, 0 at first: a new network begins as the ViT alone;
- in the last stage c listens to the ViT four times more.

A quirk that `outer_norm` keeps: "to CNN" normalises c before the extractor, which then adds its residual to
the *normalised* c, so the scale of c is lost. Without the flag the residual path is clean.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.deform_attn import MSDeformAttn, cell_centres
from citycover_models.blocks.vit import ViTBlock, init_vit, map_to_tokens, tokens_to_map

STAGES = 4

LEVELS = 3
"""Levels of the pyramid that are tokens: /8, /16, /32."""

EXTRAS = 4
"""Times that the pyramid listens to the ViT's last tokens once more."""


def split_levels(c: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """(n, sum of y*x, c) -> one map (n, c, y, x) a level."""
    parts = c.split([height * width for height, width in shapes], dim=1)
    maps: list[Tensor] = []
    for part, (height, width) in zip(parts, shapes):  # noqa: B905  (TorchScript knows no `strict`)
        maps.append(tokens_to_map(part, height, width))
    return maps


def join_levels(maps: list[Tensor]) -> Tensor:
    """One map (n, c, y, x) a level -> (n, sum of y*x, c)."""
    tokens: list[Tensor] = []
    for level in maps:
        tokens.append(map_to_tokens(level))  # noqa: PERF401
    return torch.cat(tokens, dim=1)


def add_to_middle(c: Tensor, x: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
    """Add the ViT's tokens x to the level of the pyramid on the same grid, /16."""
    parts = c.split([height * width for height, width in shapes], dim=1)
    return torch.cat([parts[0], parts[1] + x, parts[2]], dim=1)


class SpatialPyramid(nn.Module):
    """Plain convolutions: a map -> `dim` channels at /4, /8, /16 and /32 (section 3.1)."""

    def __init__(self, in_channels: int, dim: int, base: int = 64) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]

        self.stem = nn.Sequential(
            *conv(in_channels, base, 2),
            *conv(base, base, 1),
            *conv(base, base, 1),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*conv(base, 2 * base, 2))
        self.conv3 = nn.Sequential(*conv(2 * base, 4 * base, 2))
        self.conv4 = nn.Sequential(*conv(4 * base, 4 * base, 2))
        self.fc1 = nn.Conv2d(base, dim, 1)
        self.fc2 = nn.Conv2d(2 * base, dim, 1)
        self.fc3 = nn.Conv2d(4 * base, dim, 1)
        self.fc4 = nn.Conv2d(4 * base, dim, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, c, y, x) -> [(n, dim, y/4, x/4), ... (n, dim, y/32, x/32)]."""
        c1 = self.stem(x)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return [self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)]


class ReceptiveFields(nn.Module):
    """Depthwise 3x3 on the first half of the channels, 5x5 on the second; BatchNorm, GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.dw3 = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.dw5 = nn.Conv2d(half, half, 5, padding=2, groups=half)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c, y, x)."""
        near, far = x.chunk(2, dim=1)
        return F.gelu(self.norm(torch.cat([self.dw3(near), self.dw5(far)], dim=1)))


class MRFP(nn.Module):
    """Multi-receptive-field feature pyramid, without a residual path (section 3.2)."""

    def __init__(self, dim: int, ratio: int = 6) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.levels = nn.ModuleList(ReceptiveFields(ratio * dim) for _ in range(LEVELS))
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, c: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        maps = split_levels(self.fc1(c), shapes)  # (n, 6 c, y, x) each
        for i, level in enumerate(self.levels):
            maps[i] = level(maps[i])
        return self.fc2(F.gelu(join_levels(maps)))  # a second GELU, as published


class ConvFFN(nn.Module):
    """x -> x + linear, depthwise 3x3 on each level, GELU, linear of LayerNorm x."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 4
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, c: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        maps = split_levels(self.fc1(self.norm(c)), shapes)  # (n, c/4, y, x) each
        for i in range(len(maps)):
            maps[i] = self.dwconv(maps[i])
        return c + self.fc2(F.gelu(join_levels(maps)))


class ToViT(nn.Module):
    """The pyramid speaks to the ViT: x + gamma (a1 + a2 + a3), a = attention of c over itself (eq. 4)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, eps=1e-6)
        self.value_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MSDeformAttn(dim, heads, LEVELS)
        self.ffn = ConvFFN(dim)
        self.gamma = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, c: Tensor, centres: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """X (n, y/16 * x/16, c) and c (n, t, c) -> x."""
        a = self.attn(self.query_norm(c), centres, self.value_norm(c), shapes)
        maps = split_levels(self.ffn(a, shapes), shapes)
        total = maps[1]
        size = [shapes[1][0], shapes[1][1]]
        for level in (maps[0], maps[2]):  # /8 halved, /32 doubled
            total = total + F.interpolate(level, size=size, mode="bilinear", align_corners=False)
        return x + self.gamma * map_to_tokens(total)


class Extractor(nn.Module):
    """c listens to itself, and so to the ViT's tokens that were just added to its middle level (eq. 5).

    Args:
        dim: channels.
        heads: of the attention.
        outer_norm: normalise c first, residual path included, as published.
    """

    def __init__(self, dim: int, heads: int, *, outer_norm: bool) -> None:
        super().__init__()
        self.outer_query_norm = nn.LayerNorm(dim, eps=1e-6) if outer_norm else nn.Identity()
        self.outer_value_norm = nn.LayerNorm(dim, eps=1e-6) if outer_norm else nn.Identity()
        self.query_norm = nn.LayerNorm(dim, eps=1e-6)
        self.value_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = MSDeformAttn(dim, heads, LEVELS)
        self.ffn = ConvFFN(dim)

    def forward(self, c: Tensor, centres: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        query, value = self.outer_query_norm(c), self.outer_value_norm(c)
        c = query + self.attn(self.query_norm(query), centres, self.value_norm(value), shapes)
        return self.ffn(c, shapes)


class ViTCoMer(nn.Module):
    """Tokens at /16 and a full-resolution map -> four maps at /4, /8, /16 and /32.

    Args:
        in_channels: of the map.
        dim: channels of tokens and of the four maps.
        depth: ViT blocks, shared out evenly to the four stages.
        heads: of the ViT's attention.
        deform_heads: of the deformable attention.
        base: channels of the pyramid's stem.
        outer_norm: keep the quirk of the published code.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 192,
        depth: int = 12,
        heads: int = 3,
        deform_heads: int = 6,
        base: int = 64,
        outer_norm: bool = False,
    ) -> None:
        super().__init__()
        if depth % STAGES:
            raise ValueError(f"{depth} blocks cannot be shared out to {STAGES} stages")
        self.blocks_per_stage = depth // STAGES
        self.pyramid = SpatialPyramid(in_channels, dim, base)
        self.level_embed = nn.Parameter(torch.randn(LEVELS, dim))
        self.blocks = nn.ModuleList(ViTBlock(dim, heads, layer_scale=True) for _ in range(depth))
        self.blocks.apply(init_vit)
        self.mrfp = nn.ModuleList(MRFP(dim) for _ in range(STAGES))
        self.to_vit = nn.ModuleList(ToViT(dim, deform_heads) for _ in range(STAGES))
        self.to_cnn = nn.ModuleList(
            Extractor(dim, deform_heads, outer_norm=outer_norm) for _ in range(STAGES)
        )
        self.extra_feeds = nn.ModuleList(ConvFFN(dim) for _ in range(EXTRAS))
        self.extras = nn.ModuleList(
            Extractor(dim, deform_heads, outer_norm=outer_norm) for _ in range(EXTRAS)
        )
        self.up = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(1 + LEVELS))

    def forward(self, x: Tensor, image: Tensor) -> list[Tensor]:
        """Tokens (n, y/16 * x/16, d) and a map (n, c, y, x) -> [(n, d, y/4, x/4), ... (n, d, y/32, x/32)]."""
        pyramid = self.pyramid(image)
        shapes: list[tuple[int, int]] = []
        for level in pyramid[1:]:
            shapes.append((level.shape[2], level.shape[3]))  # noqa: PERF401
        leveled: list[Tensor] = []
        for i, level in enumerate(pyramid[1:]):
            leveled.append(level + self.level_embed[i][:, None, None])
        c = join_levels(leveled)  # (n, 21 y/32 * x/32, d)
        centres = cell_centres(shapes, c)

        outputs: list[Tensor] = []
        for stage, (mrfp, to_vit, to_cnn) in enumerate(zip(self.mrfp, self.to_vit, self.to_cnn)):  # noqa: B905
            c = add_to_middle(mrfp(c, shapes), x, shapes)
            x = to_vit(x, c, centres, shapes)
            for i, block in enumerate(self.blocks):
                # TorchScript cannot slice by a variable; DeiT's names want one list of all blocks.
                if i // self.blocks_per_stage == stage:
                    x = block(x)
            c = to_cnn(add_to_middle(c, x, shapes), centres, shapes)
            outputs.append(tokens_to_map(x, shapes[1][0], shapes[1][1]))
        for feed, extra in zip(self.extra_feeds, self.extras):  # noqa: B905
            c = extra(feed(add_to_middle(c, x, shapes), shapes), centres, shapes)
        return self._merge(pyramid[0], split_levels(c, shapes), outputs)

    def _merge(self, c1: Tensor, coarser: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
        """The pyramid's four levels, each with one stage's tokens resized onto it (section 3.4)."""
        maps = [self.up(coarser[0]) + c1, coarser[0], coarser[1], coarser[2]]
        for i, norm in enumerate(self.norms):
            size = [maps[i].shape[2], maps[i].shape[3]]
            tokens = F.interpolate(outputs[i], size=size, mode="bilinear", align_corners=False)
            maps[i] = norm(maps[i] + tokens)
        return maps
