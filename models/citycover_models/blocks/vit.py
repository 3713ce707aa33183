"""Vision Transformer blocks, shared by Paraformer, VCNet and VHF-ParaNet.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", ICLR, https://arxiv.org/abs/2010.11929, eq. 2 to 4,
and Touvron et al. 2021, "Training data-efficient image transformers" (DeiT), for the tiny one.

Notable choices:
- LayerNorm (eps 1e-6) before attention and MLP, GELU, one linear layer for query, key and value;
- positions are a learned map that is resized bilinearly to the grid of tokens in hand, so windows of any size
  are taken; on the grid that it was learned on the resizing is exact identity;
- there is no class token: the networks here classify every pixel.

Parameters are named as in the public DeiT and ViT weights (`blocks.0.attn.qkv.weight`,
`blocks.0.mlp.fc1.weight`, `norm.weight`, `pos_embed` after dropping its class-token row), which load as they
are; the original `.npz` keeps query, key and value apart and is concatenated by the importer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def tokens_to_map(x: Tensor, height: int, width: int) -> Tensor:
    """(n, y*x, c) -> (n, c, y, x)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


def map_to_tokens(x: Tensor) -> Tensor:
    """(n, c, y, x) -> (n, y*x, c)."""
    return x.flatten(2).transpose(1, 2)


def resize_positions(positions: Tensor, grid: int, height: int, width: int) -> Tensor:
    """Positions learned on a square grid -> positions of another grid, bilinear.

    Args:
        positions: (1, grid*grid, c).
        grid: side of the grid that they were learned on.
        height: rows of tokens now.
        width: columns of tokens now.

    Returns:
        (1, height*width, c).
    """
    learned = tokens_to_map(positions, grid, grid)
    # Always, not only where sizes differ: a branch on the size would tie an exported graph to one size.
    now = F.interpolate(learned, size=[height, width], mode="bilinear", align_corners=False)
    return map_to_tokens(now)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens (appendix A)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be shared out to {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        n, length, dim = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (3, n, heads, t, d)
        x = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # (n, heads, t, d)
        return self.proj(x.transpose(1, 2).reshape(n, length, dim))


class Mlp(nn.Module):
    """Linear, GELU, linear, with dropout after each."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class LayerScale(nn.Module):
    """One learned factor a channel on a residual path."""

    def __init__(self, dim: int, initial: float = 1.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., c)."""
        return x * self.gamma


class ViTBlock(nn.Module):
    """Attention and MLP, each behind LayerNorm and beside a residual path (eq. 2 and 3).

    Args:
        dim: channels of a token.
        heads: attention heads.
        mlp_ratio: hidden channels of the MLP as a multiple of `dim`.
        dropout: of the MLP; attention has none.
        layer_scale: put a learned factor a channel, 1 at first, on both residual paths.
    """

    def __init__(
        self, dim: int, heads: int, *, mlp_ratio: int = 4, dropout: float = 0.0, layer_scale: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_ratio * dim, dropout)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class ViTEncoder(nn.Module):
    """Blocks one after another, then LayerNorm (eq. 2 to 4)."""

    def __init__(self, dim: int, depth: int, heads: int, *, mlp_ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ViTBlock(dim, heads, mlp_ratio=mlp_ratio, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(init_vit)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, c) -> (n, t, c)."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def init_vit(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers, zero biases: for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
