"""Methods that take a coarse label as a belief about each pixel instead of as its class.

`soft` smooths labels into targets; `block-consistency` asks that a block holds what its labels say, wherever
in it; `em` learns what labels and network together say; `implicit-posterior` learns the posterior whose
generative model explains the images best.

Beliefs are those of `--labels` at mapping time, on the grid of the image: S, the one-hot of the labels
smoothed by a Gaussian, mixed with the labels' shares as far as they are noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from citycover_models.blocks.learnable import Learnable
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.method import BaseMethod, Moment, first_after, heads_of, plain_loss

_SMALL = 1e-5
"""Belief in a class that no label nearby means, at least."""


class Soft(BaseMethod):
    """Cross-entropy with labels that were smoothed by a Gaussian."""

    name: Literal["soft"] = "soft"
    sigma: float = Field(default=4.0, ge=0.01, le=512)
    """Width in pixels; some .35 of a cell is as sharp as bilinear."""

    def __call__(self, network: Learnable, batch: LabelledBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        heads = heads_of(network, batch.images)
        target = smoothed(batch.labels, heads[0].shape[1], self.sigma)
        return _mean([soft_cross_entropy(head, target, batch) for head in heads])


class BlockConsistency(BaseMethod):
    """Cross-entropy, and in blocks of pixels the mean prediction against the shares of the labels.

    This is learning from label proportions: a cell must hold what its label says, wherever in it.
    """

    name: Literal["block-consistency"] = "block-consistency"
    block: int = Field(default=8, ge=2)
    """Side in pixels: that of a label cell, about."""
    weight: float = Field(default=1.0, ge=0, le=1e6)
    """Of the blocks beside the pixels."""

    def check_chip(self, chip: int) -> None:
        """A block lies in it."""
        if self.block > chip:
            raise ValueError(
                f"method.block = {self.block} px is more than a chip of {chip} px; give the side of a "
                "label's cell"
            )

    def __call__(self, network: Learnable, batch: LabelledBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        heads = heads_of(network, batch.images)
        blocks = _mean([block_loss(head, batch.labels, self.block) for head in heads])
        return plain_loss(heads, batch) + self.weight * blocks


class Em(BaseMethod):
    """Expectation-maximisation: the target is what labels and network together say.

    After a warm-up with plain cross-entropy. E: posterior = (p / prior) ** strength * belief, normalised,
    where the prior is the mean of p over the batch; M: cross-entropy with it.
    """

    name: Literal["em"] = "em"
    warm_up: float = Field(default=0.5, ge=0, le=1)
    """Share of the training with plain cross-entropy."""
    sigma: float = Field(default=4.0, ge=0.01, le=512)
    """Width in pixels by which labels are smoothed."""
    noise: float = Field(default=0.1, ge=0, le=1)
    """Share of the labels that is reckoned wrong."""
    strength: float = Field(default=0.5, ge=0, le=100)
    """Of the network beside the labels."""

    def counts_from(self, steps: int) -> int:
        """After the warm-up."""
        return first_after(self.warm_up, steps)

    def __call__(self, network: Learnable, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch."""
        heads = heads_of(network, batch.images)
        if moment.progress < self.warm_up:
            return plain_loss(heads, batch)
        belief = beliefs(batch.labels, heads[0].shape[1], self.sigma, self.noise)
        return _mean(
            [soft_cross_entropy(head, posterior(head, belief, self.strength), batch) for head in heads]
        )


class ImplicitPosterior(BaseMethod):
    """Rolf, Malkin, Graikos, Jojic, Robinson, Jojic 2022, Resolving label uncertainty with implicit posterior
    models, UAI, arXiv:2202.14000: the objective KL(q || r), see `free_energy`.

    Beliefs are the smoothed labels; normalisation is over a batch in the place of all data. Class weights
    have no part in it.
    """

    name: Literal["implicit-posterior"] = "implicit-posterior"
    sigma: float = Field(default=4.0, ge=0.01, le=512)
    """Width in pixels by which labels are smoothed."""
    noise: float = Field(default=0.1, ge=0, le=1)
    """Share of the labels that is reckoned wrong."""

    def __call__(self, network: Learnable, batch: LabelledBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        heads = heads_of(network, batch.images)
        belief = beliefs(batch.labels, heads[0].shape[1], self.sigma, self.noise)
        return _mean([free_energy(head, belief, batch.labels != IGNORE) for head in heads])


def smoothed(labels: Tensor, classes: int, sigma: float) -> Tensor:
    """(n, k, y, x) one-hot of (n, y, x) labels, smoothed by a Gaussian; unlabelled pixels do not vote.

    Sums to 1 wherever a label is within three sigma, else to 0.
    """
    one_hot = F.one_hot(torch.where(labels == IGNORE, classes, labels).long(), classes + 1)
    planes = one_hot[..., :classes].movedim(3, 1).float()
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, device=labels.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum()).repeat(classes, 1, 1)
    down = F.conv2d(planes, kernel[..., None], padding=(reach, 0), groups=classes)
    total = F.conv2d(down, kernel[:, :, None], padding=(0, reach), groups=classes)
    return total / total.sum(1, keepdim=True).clamp(min=1e-12)


def beliefs(labels: Tensor, classes: int, sigma: float, noise: float) -> Tensor:
    """(n, k, y, x) what labels say about each pixel: smoothed, and mixed with their shares in the batch."""
    counts = torch.bincount(labels[labels != IGNORE].long(), minlength=classes).float()
    shares = (counts / counts.sum().clamp(min=1)).view(1, classes, 1, 1)
    return (1 - noise) * smoothed(labels, classes, sigma) + noise * shares + _SMALL


def soft_cross_entropy(logits: Tensor, target: Tensor, batch: LabelledBatch) -> Tensor:
    """Mean over labelled pixels of the cross-entropy with (n, k, y, x) targets.

    A pixel weighs what its target expects of the class weights.
    """
    kept = (batch.labels != IGNORE).to(logits.dtype)
    if batch.class_weights is not None:
        kept = kept * torch.einsum("nkyx,k->nyx", target, batch.class_weights)
    entropy = -(target * logits.log_softmax(1)).sum(1)
    return (entropy * kept).sum() / kept.sum().clamp(min=1e-6)


def block_loss(logits: Tensor, labels: Tensor, block: int) -> Tensor:
    """Cross-entropy of mean predictions with the shares of labels, over blocks that have labels.

    Only pixels with a label count, in both means.
    """
    classes = logits.shape[1]
    kept = (labels != IGNORE).to(logits.dtype)[:, None]
    one_hot = F.one_hot(torch.where(labels == IGNORE, 0, labels).long(), classes).movedim(3, 1)
    shown, wanted, said = (
        F.avg_pool2d(planes, block, ceil_mode=True)
        for planes in (kept, one_hot * kept, logits.softmax(1) * kept)
    )
    seen = shown[:, 0] > 0
    shown = shown.clamp(min=1e-6)
    entropy = -(wanted / shown * (said / shown).clamp(min=1e-6).log()).sum(1)  # (n, by, bx)
    return (entropy * seen).sum() / seen.sum().clamp(min=1)


def posterior(logits: Tensor, belief: Tensor, strength: float) -> Tensor:
    """(n, k, y, x) what network and labels together say; no gradient passes."""
    with torch.no_grad():
        said = logits.log_softmax(1)
        prior = said.exp().mean((0, 2, 3), keepdim=True)
        return (strength * (said - prior.log()) + belief.log()).softmax(1)


def free_energy(logits: Tensor, belief: Tensor, labelled: Tensor) -> Tensor:
    """KL(q_i || b_i(l) p(x_i | l)), the mean over pixels and up to a constant.

    The generative model is the one whose posterior q is: p(x_i | l) = q_i(l) / sum_j q_j(l). So log q_i
    cancels; there remain the entropy of the mean prediction and how far predictions leave their beliefs:
    sum_l mean(q)(l) log mean(q)(l) - mean_i sum_l q_i(l) log b_i(l).
    """
    q = logits.softmax(1).movedim(1, 3)[labelled]  # (pixel, k)
    if not len(q):
        return logits.sum() * 0
    mean = q.mean(0)
    spread = (mean * mean.clamp(min=1e-12).log()).sum()
    return spread - (q * belief.movedim(1, 3)[labelled].log()).sum(1).mean()


def _mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()
