"""C2FNet: a full-resolution backbone with edges, coarse and fine heads, and labels that are re-examined.

The public record of C2FNet (README of its repository: names and purposes of ERRB, UDSDA and the C2F loss;
designs, formulas and tables are not public).

    window ─▶ normalise ─▶ 3x3 ─▶ ERRB ─▶ ERRB ─▶ ERRB ─▶ ERRB ─▶ ERRB
                                   │ tap            │ tap            │ tap ──┬─ mean /4, /8, /16 ─ 1x1
                                   └────────────────┴────────────────┴───────┴─ F_1, F_4, F_8, F_16
                                                                                 │            │
              logits = T cos(phi, W_k) ◀─ 1x1 ◀─ 3x3, 128 ◀─ concat at /1 ◀──────┘   coarse ◀─┘ 1x1 at /8

citycover's interpretation, since little more than names is public:
- ERRB, edge resolution refinement backbone: the resolution-preserving block of L2HNet, a gate from strips
  pooled along rows and columns, and gated dilated convolutions (1, 2, 4) whose sum is the edge map;
- "coarse to fine": a coarse head at /8 learns the region's label by plain cross-entropy, the fine head learns
  the pixels that UDSDA accepts;
- UDSDA, unsupervised dynamic shuffle and diagonal annotation: see `nets/udsda.py`;
- edges can be taught where they lie (`edges=True`, off by default): a 1x1 head on the last block's edge map
  learns the borders of what the network itself predicts, in the area that UDSDA accepts;
- the C2F loss pulls embeddings toward the weight vector of their class; its noise-aware term has the form of
  Oh et al. 2021, "Background-Aware Pooling and Noise-Aware Loss for Weakly-Supervised Semantic
  Segmentation", CVPR, eq. 8 to 10;
- published sizes (36.2 M parameters) fit no design that the record describes; none is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.conv import ConvBnRelu
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.rp import RPBlock
from citycover_models.blocks.sides import check_sides
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics
from citycover_models.nets.l2hnet import confident_area, vague_area_distance
from citycover_models.nets.udsda import Shuffle, accepted_area, annotate

__all__ = ["C2FNet", "Shuffle", "accepted_area", "annotate", "c2f_loss", "choose_labels"]

TEMPERATURE = 20.0
"""T: cosine -> logit."""

_MULTIPLE = 16


class StripGate(nn.Module):
    """A gate from means along whole rows and columns of the window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, width // 16)
        self.squeeze = ConvBnRelu(width, inner, 1)
        self.rows = nn.Conv2d(inner, width, 1)
        self.columns = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, w, y, x) -> gates in 0..1 of the same shape."""
        rows = x.mean(dim=3, keepdim=True)  # (n, w, y, 1)
        columns = x.mean(dim=2, keepdim=True).transpose(2, 3)  # (n, w, x, 1)
        both = self.squeeze(torch.cat([rows, columns], dim=2))  # (n, w', y + x, 1)
        height = x.shape[2]
        along_rows = self.rows(both[:, :, :height]).sigmoid()
        along_columns = self.columns(both[:, :, height:]).sigmoid().transpose(2, 3)
        return along_rows * along_columns


class ERRB(nn.Module):
    """Edge resolution refinement: an RP block, and what gated dilated convolutions find beside it."""

    def __init__(self, width: int, dilations: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.preserve = RPBlock(width)
        self.gate = StripGate(width)
        self.edges = nn.ModuleList(ConvBnRelu(width, width, dilation=dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, w, y, x) -> features with their edges, and the edges alone, (n, w, y, x) each."""
        u = self.preserve(x)  # holds x already
        gate = self.gate(u)
        edge = torch.zeros_like(u)
        for find in self.edges:
            edge = edge + gate * find(u)
        return u + edge, edge


@dataclass(frozen=True, slots=True)
class C2FNetWidths:
    """How wide and deep C2FNet is."""

    width: int = 64
    """w: channels at full resolution."""
    blocks: int = 5
    """ERRBs; taps follow the first, the middle and the last."""
    embedding: int = 64
    """D: channels of phi."""


class C2FNet(Learnable):
    """Raw digital numbers -> logits on the same grid; sides are multiples of 16.

    Args:
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
        widths: of the backbone.
        edges: build the edge head, for `edge_loss`.
    """

    def __init__(
        self,
        num_classes: int = 8,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        widths: C2FNetWidths | None = None,
        edges: bool = False,
    ) -> None:
        super().__init__()
        widths = widths or C2FNetWidths()
        w = widths.width
        self.temperature = TEMPERATURE
        self.multiple = _MULTIPLE
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.start = nn.Conv2d(len(statistics.mean), w, 3, padding=1)
        self.blocks = nn.ModuleList(ERRB(w) for _ in range(widths.blocks))
        self.taps = [0, widths.blocks // 2, widths.blocks - 1]
        self.pools = nn.ModuleList(nn.Sequential(nn.AvgPool2d(s), nn.Conv2d(w, w, 1)) for s in (4, 8, 16))
        self.coarse_head = nn.Conv2d(w, num_classes, 1)
        self.edge_head: nn.Conv2d | None = None
        if edges:
            self.learn_edges()
        self.fuse = ConvBnRelu(3 * w + 3 * w, 128)
        self.embed = nn.Conv2d(128, widths.embedding, 1)
        self.classifier = nn.Parameter(torch.empty(num_classes, widths.embedding))
        nn.init.normal_(self.classifier, std=0.05)

    @torch.jit.ignore  # type: ignore[untyped-decorator]
    def learn_edges(self) -> None:
        """Build the edge head, for `edge_loss`."""
        self.edge_head = nn.Conv2d(self.start.out_channels, 1, 1)

    @torch.jit.export
    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw (n, b, y, x) -> phi of length 1 (n, d, y, x), coarse logits (n, k, y/8, x/8), edge logits.

        Edge logits are (n, 1, y, x), or (n, 0, y, x) without the edge head.
        """
        check_sides("C2FNet", x.shape[2], x.shape[3], self.multiple)
        features = self.start(self.normalise(x))
        edge = features
        seen: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            features, edge = block(features)
            if i in self.taps:
                seen.append(features)
        height, width = x.shape[2], x.shape[3]
        coarse = features
        for i, pool in enumerate(self.pools):
            pooled = pool(features)  # (n, w, y/s, x/s)
            if i == 1:
                coarse = pooled
            seen.append(F.interpolate(pooled, size=[height, width], mode="bilinear", align_corners=False))
        phi = F.normalize(self.embed(self.fuse(torch.cat(seen, dim=1))), dim=1)
        edges = edge[:, :0] if self.edge_head is None else self.edge_head(edge)
        return phi, self.coarse_head(coarse), edges

    @torch.jit.export
    def embeddings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first two of `heads`."""
        phi, coarse, _ = self.heads(x)
        return phi, coarse

    @torch.jit.export
    def cosines(self, phi: Tensor) -> Tensor:
        """(n, d, y, x) embeddings -> s_k = cos(phi, W_k), (n, k, y, x)."""
        weight = F.normalize(self.classifier, dim=1)
        return F.conv2d(phi, weight[:, :, None, None])

    @torch.jit.export
    def prototypes(self) -> Tensor:
        """(k, d) weight vectors of the classes."""
        return self.classifier

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits T s, (n, k, y, x)."""
        phi, _ = self.embeddings(x)
        return self.temperature * self.cosines(phi)


# --- which labels to believe -------------------------------------------------------------------------------


Selection = Literal["off", "agree", "ot", "shuffle_diag"]


def choose_labels(
    cosines: Tensor,
    phi: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    quantile: float,
    *,
    udsda: Selection = "shuffle_diag",
    shuffle: Shuffle | None = None,
    ignore: int = 255,
) -> tuple[Tensor, Tensor]:
    """Weights p and the accepted area, by UDSDA or by what it is measured against.

    Args:
        cosines: (n, k, y, x) of `C2FNet.cosines`.
        phi: (n, d, y, x) embeddings of length 1.
        prototypes: (k, d) weight vectors of the classes.
        labels: (n, y, x) coarse labels.
        quantile: see `accepted_area`.
        udsda: `off` accepts every label, `agree` where the best class is the label, `ot` by optimal transport
            without shuffling (`l2hnet.transported_area`), `shuffle_diag` is UDSDA.
        shuffle: of UDSDA.
        ignore: label of pixels without one.

    Returns:
        (n, y, x) p in 0..1, and (n, y, x) bool, both for `c2f_loss`.
    """
    if udsda == "shuffle_diag":
        p = annotate(phi, prototypes, labels, shuffle, ignore=ignore)
        return p, accepted_area(p, labels, quantile, ignore=ignore)
    if udsda == "off":
        accepted = labels != ignore
    else:
        probabilities = (TEMPERATURE * cosines.detach()).softmax(dim=1)
        accepted = confident_area(probabilities, labels, ignore, udsda)
    return accepted.to(phi.dtype), accepted


# --- C2F loss ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class C2FWeights:
    """Weights of the terms; 0.1, 7 and 20 are those of Oh et al."""

    vague: float = 0.1
    cosine: float = 0.1
    dva: float = 0.01
    coarse: float = 0.4
    edge: float = 0.1
    """Of the edge head, where there is one: citycover's choice."""
    damping: float = 7.0
    margin: float = 0.2
    """m: cosine above which another class repels."""


def c2f_loss(
    cosines: Tensor,
    phi: Tensor,
    coarse_logits: Tensor,
    labels: Tensor,
    p: Tensor,
    accepted: Tensor,
    *,
    ignore: int = 255,
    weights: C2FWeights | None = None,
    vague_labels: Tensor | None = None,
    edge_logits: Tensor | None = None,
) -> Tensor:
    """L = L_ca + 0.1 L_va + 0.1 L_cos + 0.01 L_dva + 0.4 L_coarse (+ 0.1 L_edge).

    Terms without a pixel add 0.

    Args:
        cosines: (n, k, y, x) of `C2FNet.cosines`.
        phi: (n, d, y, x) embeddings.
        coarse_logits: (n, k, y/8, x/8).
        labels: (n, y, x) coarse labels.
        p: (n, y, x) of `annotate`.
        accepted: (n, y, x) bool of `accepted_area`.
        ignore: label of pixels without one.
        weights: of the terms.
        vague_labels: (n, y, x) what vague pixels learn, of `udsda.pseudo_labels`; None: their coarse labels.
        edge_logits: (n, 1, y, x) of `C2FNet.heads`; None: no L_edge.
    """
    weights = weights or C2FWeights()
    valid = labels != ignore
    accepted = accepted & valid
    vague = valid & ~accepted
    l_coarse = coarse_loss(coarse_logits, labels, ignore=ignore)
    if vague_labels is not None:
        labels = vague_labels.where(vague, labels)
        vague = vague & (labels != ignore)
    target = labels.where(labels != ignore, 0).long()
    entropy = F.cross_entropy(TEMPERATURE * cosines, target, reduction="none")
    own = cosines.gather(1, target[:, None])[:, 0]
    l_ca = _weighted_mean(entropy, p * accepted)
    # sigma: near one where the label is what the pixel looks like, near zero where it is noise
    sigma = ((1 + own) / (1 + cosines.amax(dim=1)).clamp(min=1e-6)).detach() ** weights.damping
    l_va = _weighted_mean(entropy, sigma * vague)
    others = cosines.scatter(1, target[:, None], -1.0).amax(dim=1)
    l_cos = _weighted_mean((1 - own) + F.relu(others - weights.margin), accepted.to(own.dtype))
    l_dva = vague_area_distance(phi, cosines.argmax(dim=1), accepted, cosines.shape[1])
    total = l_ca + weights.vague * l_va + weights.cosine * l_cos + weights.dva * l_dva
    if edge_logits is not None:
        total = total + weights.edge * edge_loss(edge_logits, cosines.argmax(dim=1), accepted)
    return total + weights.coarse * l_coarse


def edge_loss(logits: Tensor, predicted: Tensor, accepted: Tensor) -> Tensor:
    """Binary cross-entropy with the borders of what is predicted, over the accepted area.

    Args:
        logits: (n, 1, y, x) of the edge head.
        predicted: (n, y, x) best class; a pixel is a border if one of its four neighbours has another.
        accepted: (n, y, x) bool.
    """
    border = torch.zeros_like(accepted)
    rows = predicted[:, 1:] != predicted[:, :-1]
    columns = predicted[:, :, 1:] != predicted[:, :, :-1]
    border[:, 1:] |= rows
    border[:, :-1] |= rows
    border[:, :, 1:] |= columns
    border[:, :, :-1] |= columns
    entropy = F.binary_cross_entropy_with_logits(logits[:, 0], border.to(logits.dtype), reduction="none")
    return _weighted_mean(entropy, accepted.to(logits.dtype))


def coarse_loss(logits: Tensor, labels: Tensor, *, ignore: int = 255) -> Tensor:
    """Cross-entropy of the coarse head with the most frequent label of each of its cells.

    Args:
        logits: (n, k, y/s, x/s).
        labels: (n, y, x).
        ignore: label of pixels without one; a cell without any label is left out.
    """
    cell = labels.shape[1] // logits.shape[2]
    k = logits.shape[1]
    valid = labels != ignore
    one_hot = F.one_hot(labels.where(valid, 0).long(), k) * valid[..., None]
    counts = F.avg_pool2d(one_hot.permute(0, 3, 1, 2).float(), cell)  # (n, k, y/s, x/s)
    target = counts.argmax(dim=1)
    return _weighted_mean(
        F.cross_entropy(logits, target, reduction="none"), (counts.sum(dim=1) > 0).to(logits.dtype)
    )


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of values by weights; 0, with zero gradients, where all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
