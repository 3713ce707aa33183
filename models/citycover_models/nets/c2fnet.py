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
- UDSDA, unsupervised dynamic shuffle and diagonal annotation: pixels are shuffled into groups, matched to the
  labels of their group by optimal transport, and accepted where the match is their own label;
- the C2F loss pulls embeddings toward the weight vector of their class; its noise-aware term has the form of
  Oh et al. 2021, "Background-Aware Pooling and Noise-Aware Loss for Weakly-Supervised Semantic
  Segmentation", CVPR, eq. 8 to 10;
- published sizes (36.2 M parameters) fit no design that the record describes; none is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover.card import ModelCard, WindowRule
from citycover.legend import read_legend
from citycover_models.blocks.aerial import CHESAPEAKE_RGBN, POLAND_RGB, AerialStatistics
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.rp import RPBlock
from citycover_models.blocks.sides import check_sides
from citycover_models.nets.l2hnet import vague_area_distance
from citycover_models.preset import Preset

TEMPERATURE = 20.0
"""T: cosine -> logit."""
_MULTIPLE = 16


def _conv_bn_relu(in_channels: int, channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(
            in_channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class StripGate(nn.Module):
    """A gate from means along whole rows and columns of the window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(8, width // 16)
        self.squeeze = _conv_bn_relu(width, inner, 1)
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
        self.edges = nn.ModuleList(_conv_bn_relu(width, width, 3, dilation) for dilation in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(n, w, y, x) -> (n, w, y, x)."""
        u = self.preserve(x)  # holds x already
        gate = self.gate(u)
        edge = torch.zeros_like(u)
        for find in self.edges:
            edge = edge + gate * find(u)
        return u + edge


@dataclass(frozen=True, slots=True)
class C2FNetWidths:
    """How wide and deep C2FNet is."""

    width: int = 64
    """w: channels at full resolution."""
    blocks: int = 5
    """ERRBs; taps follow the first, the middle and the last."""
    embedding: int = 64
    """D: channels of phi."""


class C2FNet(nn.Module):
    """Raw digital numbers -> logits on the same grid; sides are multiples of 16.

    Args:
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
        widths: of the backbone.
    """

    def __init__(
        self,
        num_classes: int = 8,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        widths: C2FNetWidths | None = None,
    ) -> None:
        super().__init__()
        widths = widths or C2FNetWidths()
        w = widths.width
        self.temperature = TEMPERATURE
        self.multiple = _MULTIPLE
        """Sides of windows are multiples of this."""
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.start = nn.Conv2d(len(statistics.mean), w, 3, padding=1)
        self.blocks = nn.ModuleList(ERRB(w) for _ in range(widths.blocks))
        self.taps = [0, widths.blocks // 2, widths.blocks - 1]
        self.pools = nn.ModuleList(nn.Sequential(nn.AvgPool2d(s), nn.Conv2d(w, w, 1)) for s in (4, 8, 16))
        self.coarse_head = nn.Conv2d(w, num_classes, 1)
        self.fuse = _conv_bn_relu(3 * w + 3 * w, 128, 3)
        self.embed = nn.Conv2d(128, widths.embedding, 1)
        self.classifier = nn.Parameter(torch.empty(num_classes, widths.embedding))
        nn.init.normal_(self.classifier, std=0.05)

    @torch.jit.export
    def embeddings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (n, b, y, x) -> phi of length 1 (n, d, y, x), and coarse logits (n, k, y/8, x/8)."""
        check_sides("C2FNet", x.shape[2], x.shape[3], self.multiple)
        features = self.start(self.normalise(x))
        seen: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            features = block(features)
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
        return phi, self.coarse_head(coarse)

    @torch.jit.export
    def cosines(self, phi: Tensor) -> Tensor:
        """(n, d, y, x) embeddings -> s_k = cos(phi, W_k), (n, k, y, x)."""
        weight = F.normalize(self.classifier, dim=1)
        return F.conv2d(phi, weight[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits T s, (n, k, y, x)."""
        phi, _ = self.embeddings(x)
        return self.temperature * self.cosines(phi)


# --- UDSDA: which labels to believe, and how much ---------------------------------------------------------


def sinkhorn(cost: Tensor, eps: float = 0.05, iterations: int = 20) -> Tensor:
    """Transport plans of uniform marginals, in the log domain.

    Args:
        cost: (g, n, n).
        eps: weight of the entropy.
        iterations: of both scalings.

    Returns:
        (g, n, n), rows and columns summing to 1/n.
    """
    n = cost.shape[1]
    log_mass = -torch.log(torch.tensor(float(n), device=cost.device))
    kernel = -cost / eps
    f = torch.zeros(cost.shape[:2], device=cost.device, dtype=cost.dtype)
    g = torch.zeros_like(f)
    for _ in range(iterations):
        f = log_mass - torch.logsumexp(kernel + g[:, None, :], dim=2)
        g = log_mass - torch.logsumexp(kernel + f[:, :, None], dim=1)
    return (kernel + f[:, :, None] + g[:, None, :]).exp()


@dataclass(frozen=True, slots=True)
class Shuffle:
    """How UDSDA regroups pixels."""

    scales: tuple[int, ...] = (4, 8, 16)
    rounds: int = 4
    """R: regroupings a scale."""
    group: int = 64
    """n: tokens that are matched with each other."""
    distance: float = 0.1
    """beta: how much nearness in the image counts."""


def annotate(
    phi: Tensor, prototypes: Tensor, labels: Tensor, shuffle: Shuffle | None = None, *, ignore: int = 255
) -> Tensor:
    """UDSDA: how often, and how clearly, a pixel is matched to its own label.

    In each round the tokens of an image are shuffled into groups; in a group, tokens i are transported to the
    labels of tokens j at cost 1 - phi_i . w_(Y_j) + beta d(i, j). S_ik, the mass that token i sends to class
    k, accepts the token where its own label gets most, with score S_iY / sum_k S_ik. Rounds and scales are
    averaged.

    Args:
        phi: (n, d, y, x) embeddings of length 1.
        prototypes: (k, d) weight vectors of the classes.
        labels: (n, y, x) coarse labels.
        shuffle: scales, rounds, groups.
        ignore: label of pixels without one: they are in no group, and get 0.

    Returns:
        (n, y, x) p in 0..1.
    """
    shuffle = shuffle or Shuffle()
    prototypes = F.normalize(prototypes.detach(), dim=1)
    height, width = labels.shape[1:]
    total = torch.zeros(labels.shape, device=phi.device)
    with torch.no_grad():
        for scale in shuffle.scales:
            small = F.normalize(F.avg_pool2d(phi.detach().float(), scale), dim=1)
            coarse = labels[:, scale // 2 :: scale, scale // 2 :: scale]
            coarse = coarse[:, : small.shape[2], : small.shape[3]]
            images = zip(small, coarse, strict=True)
            scores = torch.stack([_annotate_image(p, prototypes, y, shuffle, ignore) for p, y in images])
            large = F.interpolate(scores[:, None], size=(height, width), mode="bilinear", align_corners=False)
            total += large[:, 0]
    return (total / len(shuffle.scales)) * (labels != ignore)


def _annotate_image(phi: Tensor, prototypes: Tensor, labels: Tensor, shuffle: Shuffle, ignore: int) -> Tensor:
    """(d, y, x) and (y, x) -> (y, x): the mean over rounds of one image at one scale."""
    valid = (labels != ignore).flatten().nonzero()[:, 0]
    scores = torch.zeros(labels.numel(), device=phi.device)
    groups = len(valid) // shuffle.group
    if groups == 0:
        return scores.view(labels.shape)
    tokens, marks = phi.flatten(1).T, labels.flatten().long()
    rows, cols = torch.meshgrid(*(torch.arange(s, device=phi.device) for s in labels.shape), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], dim=1).float() / max(labels.shape)
    seen = torch.zeros_like(scores)
    for _ in range(shuffle.rounds):
        order = valid[torch.randperm(len(valid), device=phi.device)][: groups * shuffle.group]
        members = order.view(groups, shuffle.group)
        own = marks[members]  # (g, n)
        cost = 1 - (tokens[members] @ prototypes.T).gather(2, own[:, None, :].expand(-1, shuffle.group, -1))
        cost = cost + shuffle.distance * torch.cdist(places[members], places[members]).clamp(max=1)
        plan = sinkhorn(cost)
        mass = plan @ F.one_hot(own, len(prototypes)).to(plan.dtype)  # (g, n, k): S
        share = mass / mass.sum(dim=2, keepdim=True).clamp(min=1e-12)
        mine = share.gather(2, own[:, :, None])[:, :, 0]
        accepted = mine >= share.amax(dim=2)
        scores.index_add_(0, members.flatten(), (mine * accepted).flatten())
        seen.index_add_(0, members.flatten(), torch.ones_like(mine).flatten())
    return (scores / seen.clamp(min=1)).view(labels.shape)


def accepted_area(p: Tensor, labels: Tensor, quantile: float, *, ignore: int = 255) -> Tensor:
    """CA: pixels whose p reaches the quantile of their label's class (dynamic: it falls from 0.5 to 0.2).

    Args:
        p: (n, y, x) of `annotate`.
        labels: (n, y, x).
        quantile: share of each class that is not accepted.
        ignore: label of pixels without one; never accepted.

    Returns:
        (n, y, x) bool.
    """
    accepted = torch.zeros_like(labels, dtype=torch.bool)
    for k in labels.unique().tolist():
        if k == ignore:
            continue
        mine = labels == k
        values = p[mine].sort().values
        accepted |= mine & (p >= values[min(int(quantile * len(values)), len(values) - 1)])
    return accepted & (p > 0)


# --- C2F loss ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class C2FWeights:
    """Weights of the terms; 0.1, 7 and 20 are those of Oh et al."""

    vague: float = 0.1
    cosine: float = 0.1
    dva: float = 0.01
    coarse: float = 0.4
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
) -> Tensor:
    """L = L_ca + 0.1 L_va + 0.1 L_cos + 0.01 L_dva + 0.4 L_coarse; terms without a pixel add 0.

    Args:
        cosines: (n, k, y, x) of `C2FNet.cosines`.
        phi: (n, d, y, x) embeddings.
        coarse_logits: (n, k, y/8, x/8).
        labels: (n, y, x) coarse labels.
        p: (n, y, x) of `annotate`.
        accepted: (n, y, x) bool of `accepted_area`.
        ignore: label of pixels without one.
        weights: of the terms.
    """
    weights = weights or C2FWeights()
    valid = labels != ignore
    accepted = accepted & valid
    vague = valid & ~accepted
    target = labels.where(valid, 0).long()
    entropy = F.cross_entropy(TEMPERATURE * cosines, target, reduction="none")
    own = cosines.gather(1, target[:, None])[:, 0]
    l_ca = _weighted_mean(entropy, p * accepted)
    # sigma: near one where the label is what the pixel looks like, near zero where it is noise
    sigma = ((1 + own) / (1 + cosines.amax(dim=1)).clamp(min=1e-6)).detach() ** weights.damping
    l_va = _weighted_mean(entropy, sigma * vague)
    others = cosines.scatter(1, target[:, None], -1.0).amax(dim=1)
    l_cos = _weighted_mean((1 - own) + F.relu(others - weights.margin), accepted.to(own.dtype))
    l_dva = vague_area_distance(phi, cosines.argmax(dim=1), accepted, cosines.shape[1])
    l_coarse = coarse_loss(coarse_logits, labels, ignore=ignore)
    return (
        l_ca + weights.vague * l_va + weights.cosine * l_cos + weights.dva * l_dva + weights.coarse * l_coarse
    )


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


_PAPER = "C2FNet, public repository (README); RP block: Li et al. 2022, L2HNet; loss: Oh et al. 2021, CVPR"
_LICENCE = (
    "Written afresh from a description of the public record, which has no code of the network and no licence."
)


def c2fnet_card(name: str, statistics: AerialStatistics) -> ModelCard:
    """Card of C2FNet: 0.3 to 1 m imagery to the eight classes of sKwanda."""
    return ModelCard(
        name=name,
        description="C2FNet: full resolution with edges, learns from coarse labels",
        groups=(statistics.group,),
        gsd=(0.25, 2.0),
        native_gsd=0.6,
        # Strips are pooled over the window, so neighbours also hand over by a feather.
        window=WindowRule(size=256, multiple=_MULTIPLE, maximum=1024),
        stride=_MULTIPLE,
        trim=32,
        feather=32,
        legend=read_legend("skwanda8"),
        sources=(_PAPER,),
    )


def _preset(name: str, widths: C2FNetWidths, statistics: AerialStatistics) -> Preset:
    return Preset(
        name,
        partial(C2FNet, 8, statistics=statistics, widths=widths),
        partial(c2fnet_card, name, statistics),
        _PAPER,
        _LICENCE,
    )


_TINY = C2FNetWidths(width=16, blocks=3, embedding=16)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _preset("c2fnet", C2FNetWidths(), CHESAPEAKE_RGBN),
        _preset("c2fnet-rgb", C2FNetWidths(), POLAND_RGB),
        _preset("c2fnet-tiny", _TINY, CHESAPEAKE_RGBN),
    )
}
