"""L2HNet: fine maps out of coarse labels, by never giving up resolution.

Li et al. 2022, "Breaking the resolution barrier: A low-to-high network for large-scale high-resolution
land-cover mapping using low-resolution labels", ISPRS J. Photogramm. Remote Sens. 192, 244-267,
https://doi.org/10.1016/j.isprsjprs.2022.08.008.

    window ─▶ normalise ─▶ 3x3, w ─▶ RP ─▶ RP ─▶ RP ─▶ RP ─▶ RP ─▶ 1x1, K ─▶ logits
                                     └─────┴─────┴─────┴─────┴─ concat ─▶ d1 /2 ─▶ d2 /4 ─▶ d3 /16
                                                                       (encoder of Paraformer and VCNet only)

Notable choices:
- resolution-preserving blocks at full resolution (`blocks/rp.py`): a pixel sees 23 x 23 px and no more, so
  the network cannot learn the blocks of a coarse label;
- width 64 is the published "light" network, 128 the normal one;
- the first 3x3 convolution has neither normalisation nor activation;
- the encoder that Paraformer and VCNet are built on takes the outputs of all blocks, and leads them down to
  tokens by weight-standardised convolutions with GroupNorm (Big Transfer, TransUNet).

Loss (`cas_dva_loss`): cross-entropy where the network is confident and agrees with the coarse label, and
consistency of features between confident and vague pixels of a class.

citycover's interpretation where the public record is silent:
- the head is one 1x1 convolution, as a public re-implementation has it;
- the selector of confident areas: a pixel is confident if its class is its label's and its probability
  reaches the mean of its class in the batch (dynamic, class by class, as the paper's text describes it);
- of a descendant's selector by optimal transport (`cas="ot"`) the record asks that a token be matched to
  itself; tokens of one label are interchangeable there, so that would hang on the solver: here it must be
  matched to its own label;
- a descendant detaches the features, which leaves the consistency term without gradient; they are not
  detached here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.rp import RATIOS_L2HNET, RPBlock
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics

Selector = Literal["dynamic", "agree", "ot"]
"""How confident pixels are told from vague ones, see `confident_area`."""


@dataclass(frozen=True, slots=True)
class EncoderWidths:
    """How wide and deep the shared L2HNet encoder is; multiples of 32 where GroupNorm follows."""

    width: int = 64
    """w: channels at full resolution."""
    blocks: int = 5
    """L: resolution-preserving blocks."""
    ratios: tuple[float, ...] = RATIOS_L2HNET
    """Widths of a block's branches as shares of w."""
    half: int = 128
    """Channels at /2, for each block: 128 L together."""
    deep: int = 1024
    """Channels at /4 and /16."""


class RPTrunk(nn.Module):
    """A 3x3 convolution and L resolution-preserving blocks; gives the output of every block."""

    def __init__(self, bands: int, width: int, blocks: int, ratios: Sequence[float]) -> None:
        super().__init__()
        self.start = nn.Conv2d(bands, width, 3, padding=1)
        self.blocks = nn.ModuleList(RPBlock(width, ratios) for _ in range(blocks))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, b, y, x) -> L times (n, w, y, x)."""
        x = self.start(x)
        outputs: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


class WSConv2d(nn.Conv2d):
    """Convolution whose filters have mean 0 and variance 1 (Qiao et al. 2019, weight standardisation)."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c', y', x')."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def _down(in_channels: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        WSConv2d(in_channels, channels, kernel, stride=stride, padding=1, bias=False),
        nn.GroupNorm(32, channels, eps=1e-6),
        nn.ReLU(inplace=True),
    )


class L2HNetEncoder(nn.Module):
    """The trunk, and three steps down to the grid of tokens: what Paraformer and VCNet share."""

    def __init__(self, bands: int, widths: EncoderWidths) -> None:
        super().__init__()
        stacked = widths.width * widths.blocks
        half = widths.half * widths.blocks
        self.trunk = RPTrunk(bands, widths.width, widths.blocks, widths.ratios)
        self.d1 = _down(stacked, half, kernel=3, stride=2)
        self.d2 = _down(half, widths.deep, kernel=3, stride=2)
        self.d3 = _down(widths.deep, widths.deep, kernel=5, stride=4)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, b, y, x), sides multiples of 16 -> maps at /1 (w), /2 (128 L), /4 (1024) and /16 (1024)."""
        outputs = self.trunk(x)
        d1 = self.d1(torch.cat(outputs, dim=1))  # (n, w L, y, x) -> (n, 128 L, y/2, x/2)
        d2 = self.d2(d1)  # (n, 1024, y/4, x/4)
        return [outputs[-1], d1, d2, self.d3(d2)]  # d3: (n, 1024, y/16, x/16)


class L2HNet(Learnable):
    """Raw digital numbers -> logits on the same grid; windows of any size.

    Args:
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
        width: w; 64 light, 128 normal.
        blocks: L.
    """

    def __init__(
        self,
        num_classes: int = 16,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        width: int = 64,
        blocks: int = 5,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.trunk = RPTrunk(len(statistics.mean), width, blocks, RATIOS_L2HNET)
        self.head = nn.Conv2d(width, num_classes, 1)

    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> last features (n, w, y, x), for `cas_dva_loss`."""
        return self.trunk(self.normalise(x))[-1]

    @torch.jit.export
    def classify(self, features: Tensor) -> Tensor:
        """(n, w, y, x) features -> logits (n, k, y, x)."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits (n, k, y, x)."""
        return self.classify(self.features(x))


def confident_area(probabilities: Tensor, labels: Tensor, ignore: int, cas: Selector = "dynamic") -> Tensor:
    """CAS: which pixels are confident (True) and which are vague.

    Args:
        probabilities: (n, k, y, x).
        labels: (n, y, x) coarse labels as channel numbers.
        ignore: label of pixels without one; they are never confident.
        cas: `agree`, where the best class is the label; `dynamic`, where moreover its probability reaches the
            mean of all pixels of that predicted class in the batch; `ot`, see `transported_area`.

    Returns:
        (n, y, x) bool.
    """
    if cas == "ot":
        return transported_area(probabilities, labels, ignore)
    confidence, predicted = probabilities.max(dim=1)
    agrees = (predicted == labels) & (labels != ignore)
    if cas == "agree":
        return agrees
    k = probabilities.shape[1]
    flat = predicted.flatten()
    counts = torch.bincount(flat, minlength=k).clamp(min=1)
    sums = torch.zeros(k, dtype=confidence.dtype, device=confidence.device).index_add(
        0, flat, confidence.flatten()
    )
    # A class of equal confidences has them all at its mean: rounding must not throw half of them out.
    threshold = (sums / counts)[predicted] * (1 - 1e-6)
    return agrees & (confidence >= threshold)


def transported_area(probabilities: Tensor, labels: Tensor, ignore: int, side: int = 32) -> Tensor:
    """Confident pixels by optimal transport from what is predicted to the labels, image by image.

    Both are laid on side x side tokens, probabilities bilinearly and labels by the nearest. Tokens are
    transported to labels, each to one, at cost |p_i - onehot Y_j|^2: with uniform marginals the exact plan is
    an assignment. A token is confident if it gets its own label, whichever token holds it; pixels follow
    their token.

    Args:
        probabilities: (n, k, y, x).
        labels: (n, y, x) coarse labels as channel numbers.
        ignore: label of pixels without one; they are never confident, and no token goes to them.
        side: tokens along either side.

    Returns:
        (n, y, x) bool.
    """
    from scipy.optimize import linear_sum_assignment

    k, height, width = probabilities.shape[1:]
    small = F.interpolate(probabilities.detach().float(), size=(side, side), mode="bilinear")
    marks = F.interpolate(labels[:, None].double(), size=(side, side), mode="nearest").long().flatten(1)
    confident = torch.zeros_like(marks, dtype=torch.bool)
    for p, its_marks, found in zip(small.flatten(2), marks, confident, strict=True):
        kept = its_marks != ignore
        own = its_marks[kept]  # (t,)
        cost = torch.cdist(p[:, kept].T, F.one_hot(own, k).float()).square()  # (t, t)
        _, matched = linear_sum_assignment(cost.cpu().numpy().astype(np.float64))
        found[kept] = own[torch.from_numpy(matched).to(own.device)] == own
    pixels = F.interpolate(confident.view(-1, 1, side, side).float(), size=(height, width), mode="nearest")
    return (pixels[:, 0] > 0) & (labels != ignore)


def vague_area_distance(features: Tensor, predicted: Tensor, confident: Tensor, num_classes: int) -> Tensor:
    """L_dva, dynamic vague area: confident and vague pixels of a class should have the same features.

    For class k with share pH of confident and pL of vague pixels, on a map A of one channel:
    D_k = pL (mean A of vague - mean A)^2 + pH (mean A of confident - mean A)^2; A is once the maximum and
    once the mean over channels, and both sums over k are averaged. Classes without a pixel add nothing.

    Args:
        features: (n, c, y, x) last features, not detached.
        predicted: (n, y, x) best class.
        confident: (n, y, x) bool.
        num_classes: k.
    """
    one_hot = F.one_hot(predicted.flatten(), num_classes).to(features.dtype)  # (pixels, k)
    high = confident.flatten().to(features.dtype)
    counts = torch.stack([one_hot.sum(0), one_hot.T @ high])  # (all, confident) x k
    counts = torch.stack([counts[0], counts[1], counts[0] - counts[1]]).clamp(min=0)  # and vague
    share = counts[1:] / counts[0].clamp(min=1)  # (2, k): pH, pL
    total = features.new_zeros(())
    for values in (features.amax(dim=1), features.mean(dim=1)):
        a = values.flatten()
        sums = torch.stack([one_hot.T @ a, one_hot.T @ (a * high)])
        sums = torch.stack([sums[0], sums[1], sums[0] - sums[1]])  # (3, k)
        means = sums / counts.clamp(min=1)
        total = total + (share * (means[1:] - means[0]).square()).sum()
    return 0.5 * total


def cas_dva_loss(
    logits: Tensor,
    features: Tensor,
    labels: Tensor,
    *,
    ignore: int = 255,
    cas: Selector = "dynamic",
    gamma: float = 0.01,
    keep_shares: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """L = L_wce + gamma L_dva.

    L_wce is the cross-entropy with the coarse label, weighted by exp(confidence), over confident pixels only;
    it is 0, with zero gradients, where there are none.

    Args:
        logits: (n, k, y, x).
        features: (n, c, y, x) of `L2HNet.features`.
        labels: (n, y, x) coarse labels as channel numbers.
        ignore: label of pixels without one.
        cas: selector, see `confident_area`.
        gamma: weight of L_dva; 0.01 in L2HNet, 0.1 in a descendant.
        keep_shares: see `cross_entropy`; not published.
        class_weights: see `cross_entropy`; not published.
    """
    probabilities = logits.detach().softmax(dim=1)
    confident = confident_area(probabilities, labels, ignore, cas)
    confidence, predicted = probabilities.max(dim=1)
    weights = confidence.exp() * confident  # 0 where vague
    mean = cross_entropy(
        logits, labels, weights, ignore=ignore, keep_shares=keep_shares, class_weights=class_weights
    )
    l_wce = mean * (weights.sum() / confident.sum().clamp(min=1))
    return l_wce + gamma * vague_area_distance(features, predicted, confident, logits.shape[1])
