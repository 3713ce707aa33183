"""Multi-scale deformable attention, in plain PyTorch.

Zhu et al. 2021, "Deformable DETR: Deformable Transformers for End-to-End Object Detection", ICLR,
https://arxiv.org/abs/2010.04159, eq. 3.

Each query looks at P points a head on each of L levels. Where the points lie, and what each counts, are
linear functions of the query:

    out(q) = W_out concat_heads sum_levels sum_points  a(q) * value_level(reference + offset(q) / level size)

Notable choices:
- points are read by `grid_sample` (bilinear, zeros outside, corners not aligned), which equals the compiled
  operator that the public code needs, without compiling anything; a test compares it with a loop over points;
- at first all queries of a head look in the head's own direction, 1 to P cells away, with equal weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def cell_centres(shapes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """(sum of y*x, 2): x and y, 0..1, of the cell centres of all levels, level after level, row after row.

    Args:
        shapes: rows and columns of each level.
        like: gives device and type.
    """
    levels: list[Tensor] = []
    for height, width in shapes:
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        grid = torch.stack([x[None, :].expand(height, width), y[:, None].expand(height, width)], dim=-1)
        levels.append(grid.reshape(height * width, 2))
    return torch.cat(levels, dim=0)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention.

    Args:
        dim: channels of queries, values and output.
        heads: attention heads.
        levels: L.
        points: P, for each head and level.
    """

    def __init__(self, dim: int, heads: int, levels: int, points: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels cannot be shared out to {heads} heads")
        self.heads = heads
        self.levels = levels
        self.points = points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self._initialise()

    def _initialise(self) -> None:
        """Directions by head, distances by point, equal weights (appendix A.4 of the paper)."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2.0 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)  # (heads, 2)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = directions[:, None, None, :] * steps[None, None, :, None]  # (heads, 1, points, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, query: Tensor, reference: Tensor, value: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Gather values around the reference point of each query.

        Args:
            query: (n, q, c).
            reference: (q, 2) x and y, 0..1, of each query: the same on every level.
            value: (n, sum of y*x, c), level after level.
            shapes: rows and columns of each of the L levels.

        Returns:
            (n, q, c).
        """
        n, q, dim = query.shape
        values = self.value_proj(value).split([height * width for height, width in shapes], dim=1)
        offsets = self.sampling_offsets(query).reshape(n, q, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).reshape(n, q, self.heads, self.levels * self.points)
        weights = weights.softmax(dim=-1).reshape(n, q, self.heads, self.levels, self.points)

        # grid_sample counts from -1 to 1, of the whole level: location = 2 (reference + offset / size) - 1
        corner = (2.0 * reference - 1.0)[None, :, None, None, :]  # (1, q, 1, 1, 2)
        out = torch.zeros([n * self.heads, dim // self.heads, q], dtype=query.dtype, device=query.device)
        for level, (height, width) in enumerate(shapes):
            x = corner[..., 0] + offsets[:, :, :, level, :, 0] * (2.0 / width)  # (n, q, heads, p)
            y = corner[..., 1] + offsets[:, :, :, level, :, 1] * (2.0 / height)
            grid = torch.stack([x, y], dim=-1).transpose(1, 2).flatten(0, 1)  # (n heads, q, p, 2)
            cells = values[level].transpose(1, 2)  # (n, c, y*x)
            cells = cells.reshape(n * self.heads, dim // self.heads, height, width)
            seen = F.grid_sample(cells, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            weight = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]  # (n heads, 1, q, p)
            out = out + (seen * weight).sum(dim=-1)  # (n heads, d, q)
        return self.output_proj(out.reshape(n, dim, q).transpose(1, 2))
