"""VHF-ParaNet: a CNN and a ViT side by side, harmonised where they meet, taught by noisy coarse labels.

The public record of VHF-ParaNet (README of its repository: parallel branches, NLAT, MLA; no code, no formula,
no table). Agent attention: Han et al. 2023, https://arxiv.org/abs/2312.08874, eq. 4. Coordinate attention:
Hou et al. 2021, https://arxiv.org/abs/2103.02907, figure 2c.

    window ─▶ normalise ─┬─ 3x3 ─▶ RP + attention ─▶ RP + attention ─▶ ... ─▶ 1x1 ─▶ logits (CNN)
                         │            ▲▼ harmonise      ▲▼ harmonise
                         └─ /16 ─▶ ViT blocks ──────▶ ViT blocks ──────▶ ...
                                      │ layer 1           │ layer 2         │
                                      └───────────── MLA: agents ───────────┴─▶ x16 ─▶ logits (ViT)

citycover's interpretation, since little more than names is public:
- "deep attention" is coordinate attention after each resolution-preserving block, beside a residual path;
- "feature harmonisation" exchanges maps at three stages: each branch takes the other's, brought to its own
  grid and (`adain`) to its own mean and deviation a channel, times a learned factor that starts at 0;
- MLA, "multi-layer agent": pooled agent tokens read the tokens of several layers, every layer reads the
  agents, and the layers are summed from the top down; since the letters also stand for SETR's multi-level
  aggregation (Zheng et al. 2021, https://arxiv.org/abs/2012.15840, figure 1c), `mla="setr"` builds that;
- NLAT, noise-label-assisted training: the CNN learns the coarse label, the ViT learns it where the CNN
  agrees, as far as the CNN is sure;
- a map is made from the mean of both branches' probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.rp import RPBlock
from citycover_models.blocks.sides import check_sides
from citycover_models.blocks.vit import ViTBlock, init_vit, map_to_tokens, resize_positions, tokens_to_map
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics

_PATCH = 16

_STAGES = 3

_TAPPED = 4
"""L: layers that MLA reads."""

Harmonise = Literal["add", "adain"]


class CoordinateAttention(nn.Module):
    """Gates along rows and along columns, from means along the other axis; beside a residual path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, width // 16)
        self.squeeze = nn.Sequential(
            nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish(inplace=True)
        )
        self.rows = nn.Conv2d(inner, width, 1)
        self.columns = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, w, y, x) -> (n, w, y, x)."""
        rows = x.mean(dim=3, keepdim=True)  # (n, w, y, 1)
        columns = x.mean(dim=2, keepdim=True).transpose(2, 3)  # (n, w, x, 1)
        both = self.squeeze(torch.cat([rows, columns], dim=2))
        height = x.shape[2]
        gate = self.rows(both[:, :, :height]).sigmoid()
        return x + x * gate * self.columns(both[:, :, height:]).sigmoid().transpose(2, 3)


class Harmony(nn.Module):
    """Adds the map of one branch to that of the other.

    Args:
        in_channels: of the branch that gives.
        channels: of the branch that takes.
        mode: `adain` brings what is given to mean and deviation of what takes, channel by channel.
    """

    def __init__(self, in_channels: int, channels: int, mode: Harmonise) -> None:
        super().__init__()
        self.adain = mode == "adain"
        self.project = nn.Conv2d(in_channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        """(n, c, y, x) and (n, c', y', x') -> (n, c, y, x)."""
        given = self.project(given)
        if given.shape[2] > x.shape[2]:
            given = F.adaptive_avg_pool2d(given, (x.shape[2], x.shape[3]))
        else:
            given = F.interpolate(given, size=[x.shape[2], x.shape[3]], mode="bilinear", align_corners=False)
        if self.adain:
            var, mean = torch.var_mean(given, dim=(2, 3), keepdim=True, correction=0)
            var_x, mean_x = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
            given = (given - mean) * torch.sqrt((var_x + 1e-5) / (var + 1e-5)) + mean_x
        return x + self.gamma[:, None, None] * given


class MultiLayerAgent(nn.Module):
    """softmax(Q A^T) softmax(A K^T) V over the tokens of all tapped layers, summed from the top down.

    Args:
        dim: channels of a token.
        layers: L, layers that are tapped.
        side: agents are `side` x `side` means of the last layer.
    """

    def __init__(self, dim: int, layers: int, side: int = 7) -> None:
        super().__init__()
        self.side = side
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(layers))
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.agent = nn.Linear(dim, dim)
        self.project = nn.Linear(dim, dim)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU())
            for _ in range(layers)
        )

    def forward(self, layers: list[Tensor], height: int, width: int) -> Tensor:
        """L times (n, y*x, c) -> (n, c, y, x)."""
        tokens: list[Tensor] = []
        for i, norm in enumerate(self.norms):
            tokens.append(norm(layers[i]))
        every = torch.cat(tokens, dim=1)  # (n, L*y*x, c)
        pooled = F.adaptive_avg_pool2d(tokens_to_map(tokens[-1], height, width), self.side)
        agents = self.agent(map_to_tokens(pooled))  # (n, m, c)
        read = F.scaled_dot_product_attention(agents, self.key(every), self.value(every))  # (n, m, c)
        total = torch.zeros_like(tokens_to_map(tokens[0], height, width))
        fused = total
        for i in range(len(tokens) - 1, -1, -1):
            told = F.scaled_dot_product_attention(self.query(tokens[i]), agents, read)
            total = total + tokens_to_map(tokens[i] + self.project(told), height, width)
            tokens[i] = map_to_tokens(total)
        for i, smooth in enumerate(self.smooth):
            fused = fused + smooth(tokens_to_map(tokens[i], height, width))
        return fused / len(tokens)


class MultiLevelAggregation(nn.Module):
    """SETR-MLA: layers summed from the top down, each refined and enlarged four times, side by side.

    Args:
        dim: channels of a token, and of the result; a multiple of `layers`.
        layers: L, layers that are tapped.
    """

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in range(layers))
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim // layers, 3, padding=1, bias=False),
                nn.BatchNorm2d(dim // layers),
                nn.ReLU(),
            )
            for _ in range(layers)
        )

    def forward(self, layers: list[Tensor], height: int, width: int) -> Tensor:
        """L times (n, y*x, c) -> (n, c, 4 y, 4 x)."""
        maps: list[Tensor] = []
        for i, lateral in enumerate(self.laterals):
            maps.append(lateral(tokens_to_map(layers[i], height, width)))
        for i in range(len(maps) - 2, -1, -1):
            maps[i] = maps[i] + maps[i + 1]
        for i, smooth in enumerate(self.smooth):
            maps[i] = F.interpolate(smooth(maps[i]), scale_factor=4.0, mode="bilinear", align_corners=False)
        return torch.cat(maps, dim=1)


class Stage(nn.Module):
    """Some blocks of either branch, after which each takes what the other found."""

    def __init__(
        self, width: int, blocks: int, dim: int, depth: int, heads: int, harmonise: Harmonise
    ) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            *(nn.Sequential(RPBlock(width), CoordinateAttention(width)) for _ in range(blocks))
        )
        self.vit = nn.ModuleList(ViTBlock(dim, heads) for _ in range(depth))
        self.vit.apply(init_vit)
        self.to_vit = Harmony(width, dim, harmonise)
        self.to_cnn = Harmony(dim, width, harmonise)

    def forward(
        self, features: Tensor, tokens: Tensor, height: int, width: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Features (n, w, y, x) and tokens (n, t, c) -> features, and the tokens after every ViT block."""
        features = self.cnn(features)
        layers: list[Tensor] = []
        for block in self.vit:
            tokens = block(tokens)
            layers.append(tokens)
        grid = tokens_to_map(tokens, height, width)
        layers[-1] = map_to_tokens(self.to_vit(grid, features))
        return self.to_cnn(features, grid), layers


@dataclass(frozen=True, slots=True)
class VHFWidths:
    """How wide and deep both branches are."""

    width: int = 64
    """w: channels of the CNN, at full resolution."""
    blocks: int = 5
    """RP blocks, at least 3: one a stage."""
    dim: int = 192
    """Channels of a token."""
    depth: int = 12
    """ViT blocks, at least 4: MLA taps four of them."""
    heads: int = 3
    grid: int = 16
    """Side of the grid that positions are learned on: 256 px."""


class VHFParaNet(Learnable):
    """Raw digital numbers -> scores on the same grid; sides are multiples of 16.

    Args:
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
        widths: of both branches.
        harmonise: see `Harmony`.
        mla: `agent`, see `MultiLayerAgent`; `setr`, see `MultiLevelAggregation`.
    """

    def __init__(
        self,
        num_classes: int = 8,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        widths: VHFWidths | None = None,
        harmonise: Harmonise = "adain",
        mla: Literal["agent", "setr"] = "agent",
    ) -> None:
        super().__init__()
        widths = widths or VHFWidths()
        bands, w, dim = len(statistics.mean), widths.width, widths.dim
        self.multiple = _PATCH
        self.grid = widths.grid
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.start = nn.Conv2d(bands, w, 3, padding=1)
        self.patches = nn.Conv2d(bands, dim, _PATCH, stride=_PATCH)
        self.positions = nn.Parameter(torch.zeros(1, widths.grid**2, dim))
        shares = zip(_share(widths.blocks), _share(widths.depth), strict=True)
        self.stages = nn.ModuleList(
            Stage(w, blocks, dim, depth, widths.heads, harmonise) for blocks, depth in shares
        )
        self.taps = [widths.depth * (i + 1) // _TAPPED - 1 for i in range(_TAPPED)]
        self.mla = MultiLayerAgent(dim, _TAPPED) if mla == "agent" else MultiLevelAggregation(dim, _TAPPED)
        self.head_cnn = nn.Conv2d(w, num_classes, 1)
        self.head_vit = nn.Conv2d(dim, num_classes, 1)
        nn.init.trunc_normal_(self.positions, std=0.02)

    @torch.jit.export
    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (n, b, y, x) -> logits of the CNN and of the ViT, (n, k, y, x) each, for `nlat_loss`."""
        check_sides("VHF-ParaNet", x.shape[2], x.shape[3], self.multiple)
        x = self.normalise(x)
        rows, cols = x.shape[2] // 16, x.shape[3] // 16
        tokens = map_to_tokens(self.patches(x)) + resize_positions(self.positions, self.grid, rows, cols)
        features = self.start(x)
        every: list[Tensor] = []
        for stage in self.stages:
            features, layers = stage(features, tokens, rows, cols)
            tokens = layers[-1]
            every += layers
        tapped: list[Tensor] = []
        for i in self.taps:
            tapped.append(every[i])  # noqa: PERF401  (TorchScript: no comprehension here)
        logits = self.head_vit(self.mla(tapped, rows, cols))  # (n, k, y/16, x/16), or /4
        size = [x.shape[2], x.shape[3]]
        vit = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return self.head_cnn(features), vit

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> mean probabilities of both branches (n, k, y, x)."""
        cnn, vit = self.branches(x)
        return 0.5 * (cnn.softmax(dim=1) + vit.softmax(dim=1))


def _share(count: int) -> list[int]:
    """`count` blocks over the stages, the first of them a little more."""
    return [(count + _STAGES - 1 - stage) // _STAGES for stage in range(_STAGES)]


def nlat_loss(
    cnn_logits: Tensor,
    vit_logits: Tensor,
    labels: Tensor,
    *,
    ignore: int = 255,
    swap: bool = False,
    keep_shares: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """L = 0.5 CE(cnn, Y) + 0.5 sum w CE(vit, Y) / sum w, w = [argmax cnn = Y] max p_cnn.

    0, with zero gradients, where no pixel has a label; the second term also where the CNN agrees nowhere.

    Args:
        cnn_logits: (n, k, y, x).
        vit_logits: (n, k, y, x).
        labels: (n, y, x) coarse labels.
        ignore: label of pixels without one.
        swap: the branches change roles, every other epoch.
        keep_shares: see `cross_entropy`; not published.
        class_weights: see `cross_entropy`; not published.
    """
    leader, follower = (vit_logits, cnn_logits) if swap else (cnn_logits, vit_logits)
    confidence, predicted = leader.detach().softmax(dim=1).max(dim=1)
    weights = confidence * (predicted == labels)
    led = cross_entropy(leader, labels, ignore=ignore, class_weights=class_weights)
    followed = cross_entropy(
        follower, labels, weights, ignore=ignore, keep_shares=keep_shares, class_weights=class_weights
    )
    return 0.5 * led + 0.5 * followed
