"""The resolution-preserving (RP) block, shared by L2HNet, Paraformer, VCNet, C2FNet and VHF-ParaNet.

Li et al. 2022, "Breaking the resolution barrier: A low-to-high network for large-scale high-resolution
land-cover mapping using low-resolution labels", ISPRS J. Photogramm. Remote Sens. 192, section 3.1.

    x ─┬─ 1x1, w r0 ─ BN ─ ReLU ─┐
       ├─ 3x3, w r1 ─ BN ─ ReLU ─┼─ concat ─ 1x1, w ─ BN ─ ReLU ─ (+) ─▶
       ├─ 5x5, w r2 ─ BN ─ ReLU ─┘                                 │
       └───────────────────────────────────────────────────────────┘

Nothing is ever downsampled, so labels that are too coarse cannot blur the map; the larger a kernel, the fewer
channels it gets, so that small surroundings dominate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

RATIOS_L2HNET = (1.0, 0.5, 0.25)
"""Widths of the branches with kernel 1, 3, 5 as shares of w: L2HNet and Paraformer."""

RATIOS_VCNET = (1.0, 0.8)
"""Kernels 1 and 3 only: VCNet."""


class RPBlock(nn.Module):
    """Parallel convolutions of growing kernel, fused and added to the input.

    Args:
        width: w, channels of input and output.
        ratios: one a branch; branch i has kernel 2i + 1 and int(w * ratio) channels.
    """

    def __init__(self, width: int, ratios: Sequence[float] = RATIOS_L2HNET) -> None:
        super().__init__()
        widths = [int(width * ratio) for ratio in ratios]  # floored one by one: 64 * 0.8 -> 51
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, branch, 2 * i + 1, padding=i),
                nn.BatchNorm2d(branch),
                nn.ReLU(inplace=True),
            )
            for i, branch in enumerate(widths)
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(sum(widths), width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, w, y, x) -> (n, w, y, x)."""
        seen: list[Tensor] = []
        for branch in self.branches:
            seen.append(branch(x))  # (n, w r_i, y, x)  # noqa: PERF401  (TorchScript: no comprehension here)
        return x + self.fuse(torch.cat(seen, dim=1))
