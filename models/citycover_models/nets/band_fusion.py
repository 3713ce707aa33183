"""Fusion of Sentinel-2 bands of 10, 20 and 60 m, early, intermediate or late; scene labels or dense classes.

Siddamsetty, Stricker, Charfuelan, Nuske and Dengel 2023, "Inter-region transfer learning for land use land
cover classification", ISPRS Annals X-1/W1-2023, 881-888, https://doi.org/10.5194/isprs-annals-X-1-W1-2023-881-2023,
and its public repository, from whose description this file was written.

    early          10 m ─┐
                   20 m ─┼─ all to 10 m ─▶ backbone ─────────────────────────────────▶ r6 ─┐
                   60 m ─┘                     └ r1 ─▶ + r2 ─▶ reducer ────────────────────┴▶ CBAM ─▶ head
    intermediate   10 m ───▶ backbone ───────────────────────────────────────────────▶ r6 ─┐
                   20 m ─────┴ r1 + ─▶ + r2 + ─▶ reducer ──────────────────────────────────┴▶ CBAM ─▶ head
                   60 m ─────────────────────┘
    late           10 m ─▶ backbone ─▶ pool ─┐
                   20 m ─▶ backbone ─▶ pool ─┼─▶ CBAM ─▶ head
                   60 m ─▶ reducer ──▶ pool ─┘

Notable choices, the record's:
- coarse bands join the pyramid where their pixels are as large as its own (intermediate), or not at all
  before the end (late, whose 20 m branch is an EfficientNet-B0 whatever the other is);
- CBAM with a residual, then global pooling;
- a label-correlation branch: the pooled vector beside the constant 19 x 19 table of which labels meet. Batch
  normalisation removes a constant, so in training the table reaches the classifier only as a learnt offset;
- ResNet-18 twins have neither CBAM nor that branch; the late twin joins two times 1000 logits;
- raw numbers are normalised with the published statistics of the data set. (The repository's own do not match
  its numbers and are a defect.)

citycover's interpretation:
- a scene's labels become a map by a sliding window: one vector per window, spread over its cells of 60 px and
  blended by the engine. The window is that of the training patches;
- sizes other than 120 px: every group is cut where the 10 m group ends (n : ceil(n/2) : ceil(n/6)), coarse
  pixels are laid out from the first corner, a half-covered last one included;
- a ReLU between the two linear layers of the label branch, SAME padding for the size at hand, no bias in
  CBAM's spatial gate and one where 60 m bands join the ResNet twin. `faithful` takes all four as the public
  code has them: no ReLU, padding as for 456 px (B0: 224), a bias, none;
- the dense head, a feature pyramid over the same levels with classes of 10 m, for the pixel-level reference
  maps of BigEarthNet v2. It leaves the label branch out: labels of one pixel exclude each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover.errors import ModelError
from citycover_models.blocks.band_encoders import (
    B10,
    B20,
    B60,
    Backbone,
    Mode,
    make_encoder,
    make_pool,
    make_pyramid,
)
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.sides import check_sides
from citycover_models.imagery.sentinel2 import (
    BIGEARTHNET_V1,
    BIGEARTHNET_V2,
    BandStatistics,
)

NUM_CLASSES = 19

CELL = 60
"""Side of a cell of the label grid, in pixels of 10 m."""


class CorrelationHead(nn.Module):
    """Classifier beside the label-correlation branch.

    u = [v, L] -> BatchNorm -> 64 -> 128; logits = Linear([v, u]).
    """

    def __init__(
        self,
        channels: int,
        dropout: float,
        correlation: Tensor | None = None,
        num_classes: int = NUM_CLASSES,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        table = torch.eye(num_classes) if correlation is None else correlation
        self.register_buffer("correlation", table.float().reshape(1, num_classes**2))
        self.correlation: Tensor
        self.norm = nn.BatchNorm1d(channels + num_classes**2)
        self.linear1 = nn.Linear(channels + num_classes**2, 64)
        self.between: nn.Module = nn.Identity() if faithful else nn.ReLU()
        self.linear2 = nn.Linear(64, 128)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels + 128, num_classes)

    def forward(self, v: Tensor) -> Tensor:
        """(n, channels) -> logits (n, k)."""
        u = torch.cat([v, self.correlation.expand(v.shape[0], -1)], dim=1)
        u = F.relu(self.linear2(self.between(self.linear1(self.norm(u)))))  # (n, 128)
        return self.fc(self.dropout(torch.cat([v, u], dim=1)))


class DenseHead(nn.Module):
    """Feature pyramid: maps to 128 channels, added from the coarsest down, classes at stride 2, then x2."""

    def __init__(self, channels: list[int], num_classes: int, width: int = 128) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in reversed(channels))
        self.smooth = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.smooth_bn = nn.BatchNorm2d(width)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps at strides 2, 4, ... -> logits (n, k, y, x)."""
        x = maps[-1]
        for i, lateral in enumerate(self.laterals):
            level = lateral(maps[len(maps) - 1 - i])
            if i == 0:
                x = level
            else:
                x = level + F.interpolate(x, size=level.shape[2:], mode="bilinear", align_corners=False)
        x = self.classify(F.relu(self.smooth_bn(self.smooth(x))))  # (n, k, y/2, x/2)
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class BandGroups(nn.Module):
    """Checks that three groups lie on one another, and normalises them."""

    def __init__(self, statistics: BandStatistics, boa_offset: float) -> None:
        super().__init__()
        self.b10 = Normalise(*statistics.of(B10, boa_offset))
        self.b20 = Normalise(*statistics.of(B20, boa_offset))
        self.b60 = Normalise(*statistics.of(B60, boa_offset))

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw (n, 4, y, x), (n, 6, y/2, x/2), (n, 2, y/6, x/6), rounded up -> the same, standardised."""
        y, x = b10.shape[2], b10.shape[3]
        y20, x20, y60, x60 = (y + 1) // 2, (x + 1) // 2, (y + 5) // 6, (x + 5) // 6
        if b20.shape[2] != y20 or b20.shape[3] != x20 or b60.shape[2] != y60 or b60.shape[3] != x60:
            raise ModelError(
                f"band fusion got {y} x {x} px of 10 m with {b20.shape[2]} x {b20.shape[3]} of 20 m and "
                f"{b60.shape[2]} x {b60.shape[3]} of 60 m; it needs {y20} x {x20} and {y60} x {x60}: "
                "cut all groups to the same ground"
            )
        return self.b10(b10), self.b20(b20), self.b60(b60)


class SceneFusion(nn.Module):
    """Which labels a scene has, as a map of cells."""

    _sixty = True

    def __init__(
        self,
        mode: Mode = "early",
        backbone: Backbone = "efficientnet-b5",
        num_classes: int = NUM_CLASSES,
        *,
        statistics: BandStatistics = BIGEARTHNET_V1,
        boa_offset: float = 0.0,
        correlation: Tensor | None = None,
        faithful: bool = False,
    ) -> None:
        """Set up.

        Args:
            mode: where bands of different size meet.
            backbone: of the 10 m bands.
            num_classes: labels.
            statistics: of the training data, in digital numbers.
            boa_offset: what digital numbers carry on top (1000 since processing baseline 04.00).
            correlation: (k, k) `label_correlation` of the training labels; None: labels never meet.
            faithful: as in the public code, see the notes at the head of this file.
        """
        super().__init__()
        self.multiple = CELL
        self.least = 97
        """Least side in pixels of 10 m: late fusion needs 4 x 4 at stride 32."""
        self.groups = BandGroups(statistics, boa_offset)
        self.frozen = False
        """Whether the head alone learns."""
        self.encoder = make_encoder(mode, backbone, faithful)
        self.pool = make_pool(self.encoder, faithful, self._sixty)
        self.head: nn.Module
        if backbone == "resnet18":
            self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.pool.channels, num_classes))
        else:
            # The record gives B5's dropout to early and intermediate fusion, 0.2 to late.
            dropout = 0.4 if backbone == "efficientnet-b5" and mode != "late" else 0.2
            self.head = CorrelationHead(self.pool.channels, dropout, correlation, num_classes, faithful)

    def freeze(self) -> None:
        """From now on classifier and label branch alone learn: the record's way from region to region."""
        self.frozen = True
        for part in (self.encoder, self.pool):
            part.requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> SceneFusion:
        """Switch; what is frozen keeps its running statistics too."""
        super().train(mode)
        for part in (self.encoder, self.pool):
            part.train(mode and not self.frozen)
        return self

    @torch.jit.export
    def scene_logits(self, b10: Tensor, b20: Tensor, b60: Tensor) -> Tensor:
        """Raw groups of a scene, at least 97 px of 10 m -> logits (n, k). What training looks at."""
        check_sides("band fusion", b10.shape[2], b10.shape[3], 1, self.least)
        b10, b20, b60 = self.groups(b10, b20, b60)
        return self.head(self.pool(self.encoder(b10, b20, b60)))

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> Tensor:
        """Raw groups of a window -> logits (n, k, y/60, x/60), the same in all cells of the window.

        Raises:
            ModelError: a side is no multiple of 60, or groups do not cover the same ground.
        """
        height, width = b10.shape[2], b10.shape[3]
        check_sides("band fusion", height, width, self.multiple, self.least)
        logits = self.scene_logits(b10, b20, b60)  # (n, k)
        return logits[:, :, None, None].repeat(1, 1, height // self.multiple, width // self.multiple)


class LateFusionWithout60(SceneFusion):
    """Late fusion of the bands of 10 and 20 m alone, the record's variant; a third group is not looked at."""

    _sixty = False

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = NUM_CLASSES,
        *,
        statistics: BandStatistics = BIGEARTHNET_V1,
        correlation: Tensor | None = None,
    ) -> None:
        super().__init__("late", backbone, num_classes, statistics=statistics, correlation=correlation)

    @torch.jit.export
    def scene_logits(self, b10: Tensor, b20: Tensor, b60: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Raw groups of a scene, at least 97 px of 10 m -> logits (n, k)."""
        check_sides("band fusion", b10.shape[2], b10.shape[3], 1, self.least)
        b10, b20 = self.groups.b10(b10), self.groups.b20(b20)
        return self.head(self.pool(self.encoder(b10, b20, b20)))  # the last goes by: no pool here looks at it

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor | None = None) -> Tensor:
        """Raw groups of a window -> logits (n, k, y/60, x/60).

        Raises:
            ModelError: a side is no multiple of 60.
        """
        height, width = b10.shape[2], b10.shape[3]
        check_sides("band fusion", height, width, self.multiple, self.least)
        logits = self.scene_logits(b10, b20, b60)
        return logits[:, :, None, None].repeat(1, 1, height // self.multiple, width // self.multiple)


class DenseFusion(nn.Module):
    """One of K classes for each pixel of 10 m."""

    def __init__(
        self,
        mode: Mode = "early",
        backbone: Backbone = "efficientnet-b5",
        num_classes: int = NUM_CLASSES,
        *,
        statistics: BandStatistics = BIGEARTHNET_V2,
        boa_offset: float = 0.0,
    ) -> None:
        """Set up; see `SceneFusion` for the arguments."""
        super().__init__()
        self.multiple = 12
        """Windows are whole pixels of 60 m, and whole where 20 m and 60 m bands join: strides 2 and 4."""
        self.least = 24
        """Least side in pixels of 10 m: 60 m bands, or maps at stride 4, are halved twice."""
        self.groups = BandGroups(statistics, boa_offset)
        self.encoder = make_encoder(mode, backbone)
        self.pyramid = make_pyramid(self.encoder)
        self.head = DenseHead(self.pyramid.channels, num_classes)

    def forward(self, b10: Tensor, b20: Tensor, b60: Tensor) -> Tensor:
        """Raw groups of a window -> logits (n, k, y, x).

        Raises:
            ModelError: a side is no multiple of 12 from 24 on, or groups do not cover the same ground.
        """
        check_sides("band fusion", b10.shape[2], b10.shape[3], self.multiple, self.least)
        b10, b20, b60 = self.groups(b10, b20, b60)
        return self.head(self.pyramid(self.encoder(b10, b20, b60)))


def label_correlation(labels: Tensor) -> Tensor:
    """Which labels meet: L[i, j] = n(i and j) / sum over k of n(i and k), the diagonal counted.

    Args:
        labels: (n, k) multi-hot labels of the training scenes.

    Returns:
        (k, k) float32; rows sum to one, those of labels that never occur are zero.
    """
    hot = labels.float()
    together = hot.T @ hot
    return together / together.sum(dim=1, keepdim=True).clamp(min=1.0)


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Binary cross-entropy that looks away from what is already right; the record's option beside plain BCE.

    Args:
        logits: (n, k).
        labels: (n, k) multi-hot.
        gamma: 0 gives binary cross-entropy.
    """
    loss = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    return ((1.0 - torch.exp(-loss)) ** gamma * loss).mean()  # exp(-loss) is the probability of the truth
