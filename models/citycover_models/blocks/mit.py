"""Mix Transformer encoders, MiT-B0 to MiT-B5.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers",
NeurIPS, https://arxiv.org/abs/2105.15203, section 3.1.

Notable choices:
- overlapping patch embeddings: four stages at strides 4, 8, 16 and 32, all tokens overlap their neighbours;
- attention whose keys and values lie on a grid that is coarser by R = 8, 4, 2, 1 ("sr"), eq. 1 and 2;
- no positional embedding: a 3x3 depthwise convolution in the feed-forward part (Mix-FFN, eq. 3) leaks the
  position from the zero padding, so windows of any size are taken as they are;
- LayerNorm eps 1e-5 after embeddings and sr convolutions, 1e-6 in blocks and at the end of stages;
- stochastic depth rises linearly from 0 to 0.1 over all blocks.

Parameters are named as in the public SegFormer and DAFormer checkpoints (`patch_embed1.proj.weight`,
`block1.0.attn.q.weight`, `block1.0.mlp.dwconv.dwconv.weight`, `norm1.weight`), whose own key `head.*`, the
ImageNet classifier, has no place here. Those weights are for non-commercial use; this file was written from
the paper and a description of the record.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.drop_path import DropPath

MitVariant = Literal["b0", "b1", "b2", "b3", "b4", "b5"]


@dataclass(frozen=True, slots=True)
class MitWidths:
    """One row of table 6 of the paper."""

    dims: tuple[int, int, int, int]
    """Channels of the four stages."""
    depths: tuple[int, int, int, int]
    """Blocks of the four stages."""


_WIDE = (64, 128, 320, 512)

MIT_WIDTHS: dict[MitVariant, MitWidths] = {
    "b0": MitWidths((32, 64, 160, 256), (2, 2, 2, 2)),
    "b1": MitWidths(_WIDE, (2, 2, 2, 2)),
    "b2": MitWidths(_WIDE, (3, 4, 6, 3)),
    "b3": MitWidths(_WIDE, (3, 4, 18, 3)),
    "b4": MitWidths(_WIDE, (3, 8, 27, 3)),
    "b5": MitWidths(_WIDE, (3, 6, 40, 3)),
}

_HEADS = (1, 2, 5, 8)

_REDUCTIONS = (8, 4, 2, 1)

_MLP_RATIO = 4

_DROP_PATH = 0.1


def tokens_to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(n, y*x, c) -> (n, c, y, x)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


class OverlapPatchEmbed(nn.Module):
    """A strided convolution whose kernel is wider than its stride, then LayerNorm over channels."""

    def __init__(self, in_channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """(n, c, y, x) -> tokens (n, y'*x', dim), and y', x'."""
        x = self.proj(x)
        height, width = x.shape[2], x.shape[3]
        return self.norm(x.flatten(2).transpose(1, 2)), height, width


class EfficientSelfAttention(nn.Module):
    """Multi-head attention with keys and values on a grid that is coarser by `reduction` (eq. 1, 2)."""

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.reduces = reduction > 1
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        # Identity holds no parameters: stage 4 has neither key in the public checkpoints.
        self.sr = nn.Conv2d(dim, dim, reduction, stride=reduction) if self.reduces else nn.Identity()
        self.norm = nn.LayerNorm(dim, eps=1e-5) if self.reduces else nn.Identity()

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(n, y*x, c) -> (n, y*x, c)."""
        n, length, dim = x.shape
        q = self.q(x).reshape(n, length, self.heads, -1).transpose(1, 2)  # (n, heads, y*x, d)
        source = x
        if self.reduces:
            source = self.sr(tokens_to_map(x, height, width)).flatten(2).transpose(1, 2)  # (n, y*x/R², c)
            source = self.norm(source)
        kv = self.kv(source).reshape(n, source.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        # scale d ** -0.5 is the function's own; it never holds the (y*x, y*x/R²) matrix where it need not.
        x = F.scaled_dot_product_attention(q, kv[0], kv[1])  # (n, heads, y*x, d)
        return self.proj(x.transpose(1, 2).reshape(n, length, dim))


class DepthwiseConv(nn.Module):
    """A 3x3 depthwise convolution over tokens laid out as a map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(n, y*x, c) -> (n, y*x, c)."""
        return self.dwconv(tokens_to_map(x, height, width)).flatten(2).transpose(1, 2)


class MixFFN(nn.Module):
    """Linear, depthwise 3x3, GELU, linear (eq. 3)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, _MLP_RATIO * dim)
        self.dwconv = DepthwiseConv(_MLP_RATIO * dim)
        self.fc2 = nn.Linear(_MLP_RATIO * dim, dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(n, y*x, c) -> (n, y*x, c)."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), height, width)))


class MitBlock(nn.Module):
    """Attention and Mix-FFN, each behind LayerNorm and beside a residual path."""

    def __init__(self, dim: int, heads: int, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = EfficientSelfAttention(dim, heads, reduction)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MixFFN(dim)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """(n, y*x, c) -> (n, y*x, c)."""
        x = x + self.drop_path(self.attn(self.norm1(x), height, width))
        return x + self.drop_path(self.mlp(self.norm2(x), height, width))


class MixTransformer(nn.Module):
    """Image -> four feature maps at strides 4, 8, 16 and 32.

    Any size works whose sides are at least 32; at multiples of 32 the reduced grids of all stages cover the
    window exactly, so a network that is to run over windows asks for those.
    """

    def __init__(self, variant: MitVariant = "b5", in_channels: int = 3) -> None:
        super().__init__()
        widths = MIT_WIDTHS[variant]
        self.dims = widths.dims
        """Channels of the four maps."""
        rates = torch.linspace(0.0, _DROP_PATH, sum(widths.depths), device="cpu").tolist()

        def stage(i: int) -> nn.ModuleList:
            first = sum(widths.depths[:i])
            return nn.ModuleList(
                MitBlock(widths.dims[i], _HEADS[i], _REDUCTIONS[i], rate)
                for rate in rates[first : first + widths.depths[i]]
            )

        d1, d2, d3, d4 = widths.dims
        self.patch_embed1 = OverlapPatchEmbed(in_channels, d1, kernel=7, stride=4)
        self.patch_embed2 = OverlapPatchEmbed(d1, d2, kernel=3, stride=2)
        self.patch_embed3 = OverlapPatchEmbed(d2, d3, kernel=3, stride=2)
        self.patch_embed4 = OverlapPatchEmbed(d3, d4, kernel=3, stride=2)
        self.block1, self.norm1 = stage(0), nn.LayerNorm(d1, eps=1e-6)
        self.block2, self.norm2 = stage(1), nn.LayerNorm(d2, eps=1e-6)
        self.block3, self.norm3 = stage(2), nn.LayerNorm(d3, eps=1e-6)
        self.block4, self.norm4 = stage(3), nn.LayerNorm(d4, eps=1e-6)
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, c, y, x) -> [(n, d1, y/4, x/4), (n, d2, y/8, x/8), (n, d3, y/16, x/16), (n, d4, y/32, x/32)].

        The stages are written out, not looped over, because the public checkpoints number their names.
        """
        maps: list[Tensor] = []
        x, height, width = self.patch_embed1(x)  # (n, y*x/16, d1)
        for block in self.block1:
            x = block(x, height, width)
        x = tokens_to_map(self.norm1(x), height, width)
        maps.append(x)

        x, height, width = self.patch_embed2(x)  # (n, y*x/64, d2)
        for block in self.block2:
            x = block(x, height, width)
        x = tokens_to_map(self.norm2(x), height, width)
        maps.append(x)

        x, height, width = self.patch_embed3(x)  # (n, y*x/256, d3)
        for block in self.block3:
            x = block(x, height, width)
        x = tokens_to_map(self.norm3(x), height, width)
        maps.append(x)

        x, height, width = self.patch_embed4(x)  # (n, y*x/1024, d4)
        for block in self.block4:
            x = block(x, height, width)
        maps.append(tokens_to_map(self.norm4(x), height, width))
        return maps


def _init_weights(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers, normal by fan-out for convolutions, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
