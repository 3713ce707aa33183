"""DAFormer's adaptation, and DASPM's: a teacher labels the target, a student learns from mixtures.

Hoyer et al. 2022 (`nets/daformer.py`), section 3; ClassMix and the weight q: Tranheden et al. 2021, "DACS",
https://arxiv.org/abs/2007.08702. All images meet on the fine grid, the one of the output:

    source chip (fine) ──────────────┬──▶ student ──▶ CE with its labels, and how far F4 left its start
                                     │
                                     ├─ half of its classes, laid over ──▶ jitter, blur ──▶ student ──▶ CE x q
                                     │
    target chip (coarse) ─▶ bicubic ─┴──▶ teacher ──▶ pseudo-labels, q = share of confident pixels

A network of two resolutions (`nets/hrda.py`) learns from one crop of details a step, too: 0.9 CE + 0.1 CE of
the crop (Hoyer et al. 2022, HRDA, section 3.2).

Where this is citycover's and not the public code's, the field says so. Two further terms are off unless a
recipe asks for them: masked image consistency (Hoyer et al. 2023, MIC, https://arxiv.org/abs/2212.01322), and
consistency of the shares within a coarse pixel.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from citycover.errors import ConfigError
from citycover_models.blocks.drop_path import DropPath
from citycover_models.blocks.normalise import Normalise
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.method import BaseMethod, Company, Moment, some
from citycover_models.nets.daformer import DAFormer, abundances, feature_distance
from citycover_models.nets.hrda import HRDA, Glimpse

logger = logging.getLogger(__name__)

_NEAR = 1.1
"""Ratio of pixel sizes up to which source chips are taken as they are."""

_FAR = 2.0
"""The same, beyond which the two domains have too little in common."""

_PSF = 0.42
"""Deviation of a coarse sensor's point spread, in its own pixels."""

_DETAIL = 0.1
"""Weight of the loss of a crop of details, HRDA's."""


@runtime_checkable
class FineGrid(Protocol):
    """A network whose output may be finer than its input, in parts."""

    upscale: int
    normalise: Normalise

    def to_fine_grid(self, x: Tensor) -> Tensor:
        """(n, band, y, x) -> (n, band, u y, u x)."""

    def encode(self, x: Tensor) -> list[Tensor]:
        """Raw images on the fine grid -> maps, the deepest last."""

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Maps -> logits (n, channel, y, x) on the fine grid."""


@runtime_checkable
class TwoResolutions(FineGrid, Protocol):
    """A network that looks at a context and at details of it."""

    def context(self, x: Tensor) -> list[Tensor]:
        """Normalised images on the fine grid -> maps of the context, the deepest last."""

    def glimpse(self, x: Tensor) -> Glimpse:
        """Raw images on the fine grid -> what a step of training looks at."""


_fine_grid: type[FineGrid] = DAFormer
_two_resolutions: type[TwoResolutions] = HRDA


@dataclass(frozen=True, slots=True)
class Learned:
    """What a step makes of some images."""

    loss: Tensor
    """()."""
    logits: Tensor
    """(n, channel, y, x)."""
    deepest: Tensor
    """(n, d, y/s, x/s), the encoder's."""


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher says of a target chip."""

    labels: Tensor
    """(n, y, x)."""
    weights: Tensor
    """(n, y, x), 0 where nothing counts."""
    shares: Tensor
    """(n, k, y, x) probabilities."""


class DAFormerAdaptation(BaseMethod):
    """Teacher and student, mixtures of both domains, feature distance."""

    needs: ClassVar[type] = FineGrid
    adapts: ClassVar[bool] = True
    matches: ClassVar[bool] = True

    name: Literal["daformer"] = "daformer"
    target: Literal["mixed", "plain", "unseen"] = "mixed"
    """How chips of the target are learned from: source laid over them, as they are, or not at all, which is
    the baseline."""
    alpha: float = Field(default=0.999, ge=0, lt=1)
    """Largest decay of the teacher."""
    threshold: float = Field(default=0.968, ge=0, le=1)
    """Probability from which the teacher counts as confident."""
    border: int = Field(default=0, ge=0)
    """Pixels at the edges of a target chip whose pseudo-labels do not count; the public code has none at the
    sides, and hides rows of driving scenes."""
    feature_weight: float = Field(default=0.005, ge=0, le=1e6)
    """Of the feature distance; needs weights to begin with."""
    things: Annotated[tuple[Annotated[int, Field(ge=0, lt=IGNORE)], ...], AfterValidator(some)] | None = None
    """Ranks, from 0, of the classes whose features are worth keeping; None: all positions, as DASPM."""
    jitter: float = Field(default=0.2, ge=0, lt=1)
    """Largest change of each band's gain, and of its level in deviations; the public code jitters the
    brightness, contrast, saturation and hue of RGB."""
    degrade: float = Field(default=0.0, ge=0, le=1)
    """Share of steps in which the source is seen as the target's sensor would have seen it: citycover's."""
    masked_weight: float = Field(default=0.0, ge=0, le=1e6)
    """Of masked image consistency (MIC): what the student makes of a varied target chip with squares left
    out, by the teacher's pseudo-labels of the whole chip; 1 as published, 0 is DAFormer's."""
    masked_block: int = Field(default=32, ge=1, le=8192)
    """Side of the squares in pixels of the fine grid; 64 as published, for chips of 512."""
    masked_share: float = Field(default=0.7, ge=0, lt=1)
    """Chance of each square to be left out."""
    abundance_weight: float = Field(default=0.0, ge=0, le=1e6)
    """Of the difference between student and teacher in the shares of the classes within each pixel of the
    target that nothing was laid over: citycover's reading of sub-pixel consistency; 0.1 is a beginning."""
    eval_with: Literal["student", "teacher"] = "student"
    """Whose weights map; the student's as published."""

    def check_chip(self, chip: int) -> None:
        """The border leaves some of it, and a square does not hide all of it."""
        if 2 * self.border >= chip:
            raise ValueError(
                f"method.border = {self.border} px leaves nothing of the target's chips of {chip} px, as it "
                f"is taken from all sides; give less than {(chip + 1) // 2}, or larger chips"
            )
        if self.masked_weight and self.masked_block >= chip:
            raise ValueError(
                f"method.masked_block = {self.masked_block} px hides all of a chip of {chip} px, or nothing; "
                "give smaller squares, or larger chips"
            )

    def source_scale(self, ratio: float, upscale: int) -> float:
        """How much source chips are enlarged to lie on the fine grid.

        Raises:
            ConfigError: the pixels of the source are too large or too small for it.
        """
        scale = upscale / ratio
        farthest = 1.01 * _FAR  # metres on the ground differ by a hair from those of a projection
        if not 1 / farthest <= scale <= farthest:
            swapped = "; were source and target swapped?" if ratio < 1 else ""
            raise ConfigError(
                f"pixels of the target are {ratio:.3g} times as large as those of the source; a network of "
                f"scale {upscale} takes {upscale / _FAR:g} to {upscale * _FAR:g} times; resample one of the "
                f"two, or choose a network of another scale{swapped}"
            )
        return 1.0 if 1 / _NEAR <= scale <= _NEAR else scale

    def see(self, network: nn.Module, *groups: Tensor) -> Tensor:
        """The source lies on the fine grid already."""
        fine: Any = network
        scores: Tensor = fine.decode(fine.encode(groups[0]))
        return scores

    def company(self, network: nn.Module, *, pretrained: bool) -> Company | None:
        """A teacher, and the first encoder where it knows something."""
        if self.feature_weight and not pretrained:
            logger.warning("no --weights are given: features are not held near those of a pre-training")
        held = pretrained and self.feature_weight > 0
        teacher = copy.deepcopy(network)
        return Company(teacher, copy.deepcopy(network) if held else None, maps=self.eval_with == "teacher")

    def __call__(
        self, network: FineGrid, batch: LabelledBatch, moment: Moment, company: Company | None = None
    ) -> Tensor:
        """L = CE(source) + 0.005 L_FD + CE(mixture, q)."""
        assert company is not None and batch.target is not None, "the method adapts"  # noqa: PT018
        follow(company.teacher, network, moment.step, self.alpha)
        images = self._degraded(network, batch.images.float())
        learned = learn(network, images, batch.labels, None, batch.class_weights)
        loss = learned.loss
        if company.reference is not None:
            distance = self._distance(company.reference, images, learned.deepest, batch)
            loss = loss + self.feature_weight * distance
        if self.target == "unseen":
            return loss
        target = network.to_fine_grid(batch.target.images.float())
        valid = _finer(batch.target.labels != IGNORE, network.upscale)
        taught = self._teach(company.teacher, target, valid)
        mask = class_mix_mask(batch.labels)
        if self.target == "plain":
            mask = torch.zeros_like(mask)
        mixed = torch.where(mask[:, None], images, target)
        labels = torch.where(mask, batch.labels, taught.labels)
        weights = torch.where(mask, torch.ones_like(taught.weights), taught.weights)
        learned = learn(network, self._varied(network, mixed), labels, weights)
        loss = loss + learned.loss
        if self.abundance_weight:
            alone = valid & ~mask
            loss = loss + self.abundance_weight * abundance_distance(
                learned.logits.softmax(1), taught.shares, alone, network.upscale
            )
        return loss + self._masked(network, target, taught) if self.masked_weight else loss

    def _varied(self, network: FineGrid, images: Tensor) -> Tensor:
        return strong_augment(images, network.normalise.std, network.normalise.mean, self.jitter)

    def _masked(self, network: FineGrid, target: Tensor, taught: Taught) -> Tensor:
        """MIC (Hoyer et al. 2023, eq. 4 to 6): learn from context what the teacher saw."""
        seen = block_mask(target, self.masked_block, self.masked_share)
        images = torch.where(seen, self._varied(network, target), network.normalise.mean)
        return self.masked_weight * learn(network, images, taught.labels, taught.weights).loss

    def _degraded(self, network: FineGrid, images: Tensor) -> Tensor:
        """The source through the target's optics, in a share of the steps."""
        upscale = network.upscale
        if not self.degrade or upscale == 1 or float(torch.rand(())) >= self.degrade:
            return images
        coarse = F.avg_pool2d(blur(images, _PSF * upscale), upscale)
        return network.to_fine_grid(coarse)

    def _distance(
        self,
        reference: nn.Module,
        images: Tensor,
        deepest: Tensor,
        batch: LabelledBatch,
    ) -> Tensor:
        frozen: Any = reference.eval()
        with torch.no_grad():
            if isinstance(frozen, TwoResolutions):
                first = frozen.context(frozen.normalise(images))[-1]
            else:
                first = frozen.encode(images)[-1]
        classes = int(batch.labels.where(batch.labels != IGNORE, 0).max()) + 1
        return feature_distance(deepest, first, batch.labels, classes, self.things)

    def _teach(self, teacher: nn.Module, images: Tensor, valid: Tensor) -> Taught:
        fine: Any = teaching(teacher)
        with torch.no_grad():
            shares = fine.decode(fine.encode(images)).softmax(1)
        best, pseudo = shares.max(1)
        seen = valid.clone()
        if self.border:
            inner = torch.zeros_like(seen)
            inner[:, self.border : -self.border, self.border : -self.border] = True
            seen &= inner
        return Taught(pseudo, confidence(best, valid, self.threshold)[:, None, None] * seen, shares)


def learn(
    network: FineGrid,
    images: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    class_weights: Tensor | None = None,
) -> Learned:
    """Cross-entropy of images on the fine grid, and of a crop of their details where a network looks at one.

    Args:
        network: that learns.
        images: (n, band, y, x) raw.
        labels: (n, y, x).
        weights: (n, y, x); None: all count alike.
        class_weights: (k,) or None.
    """
    if not isinstance(network, TwoResolutions):
        maps = network.encode(images)
        logits = network.decode(maps)
        return Learned(_mean_entropy(logits, labels, weights, class_weights), logits, maps[-1])
    seen = network.glimpse(images)
    logits = network.decode(seen.maps)
    crop = (slice(None), seen.rows, seen.columns)
    whole = _mean_entropy(logits, labels, weights, class_weights)
    detail = _mean_entropy(
        seen.logits, labels[crop], None if weights is None else weights[crop], class_weights
    )
    return Learned((1 - _DETAIL) * whole + _DETAIL * detail, logits, seen.maps[-1])


def follow(teacher: nn.Module, student: Any, step: int, alpha: float) -> None:
    """Exponential mean of the parameters: a = min(1 - 1 / (t + 1), alpha); at step 0 a copy.

    Buffers are not averaged: the teacher's batch normalisation has its own statistics, of the target.
    """
    decay = min(1 - 1 / (step + 1), alpha)
    with torch.no_grad():
        for own, other in zip(teacher.parameters(), student.parameters(), strict=True):
            own.mul_(decay).add_(other, alpha=1 - decay)


def teaching(teacher: nn.Module) -> nn.Module:
    """The teacher in training mode, but for what drops at random."""
    teacher.train()
    for module in teacher.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d | DropPath):
            module.eval()
    return teacher


def confidence(best: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """q: share of the pixels of each image of which the teacher is confident.

    The public code takes the share over the batch: an image without a confident pixel weighs as others then.

    Args:
        best: (n, y, x) probability of the best class.
        valid: (n, y, x) bool.
        threshold: from which it is confident.

    Returns:
        (n,).
    """
    sure = ((best >= threshold) & valid).flatten(1).sum(1)
    return sure / valid.flatten(1).sum(1).clamp(min=1)


def class_mix_mask(labels: Tensor) -> Tensor:
    """(n, y, x) True where the label is in the half of an image's classes that was drawn.

    "No label" counts as one of them. Of an odd number the larger half is drawn. The public code draws from
    the classes of the whole batch, which leaves some images unmixed.
    """
    masks = []
    for image in labels:
        present = image.unique().cpu()
        chosen = present[torch.randperm(len(present))[: (len(present) + 1) // 2]]
        masks.append(torch.isin(image, chosen.to(image.device)))
    return torch.stack(masks)


def block_mask(images: Tensor, side: int, share: float) -> Tensor:
    """(n, 1, y, x) False in squares that are left out, each with the chance `share`, drawn for each image."""
    height, width = images.shape[2:]
    cells = torch.rand(len(images), 1, -(-height // side), -(-width // side)) >= share
    return (
        cells.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width].to(images.device)
    )


def abundance_distance(shares: Tensor, taught: Tensor, alone: Tensor, factor: int) -> Tensor:
    """Mean |a - a_teacher| over the coarse pixels of which every fine one is the target's and valid.

    Args:
        shares: (n, k, u y, u x) probabilities of the student.
        taught: the same of the teacher.
        alone: (n, u y, u x) bool, fine pixels that count.
        factor: u.

    Returns:
        (), 0 where no coarse pixel counts.
    """
    kept = F.avg_pool2d(alone[:, None].to(shares.dtype), factor) == 1  # (n, 1, y, x)
    distance = (abundances(shares, factor) - abundances(taught, factor)).abs().mean(1, keepdim=True)
    return (distance * kept).sum() / kept.sum().clamp(min=1)


def strong_augment(images: Tensor, std: Tensor, mean: Tensor, jitter: float) -> Tensor:
    """Jitter of each band in four of five steps, blur in every other; one draw for the batch.

    Args:
        images: (n, band, y, x) raw.
        std: (1, band, 1, 1) of the network.
        mean: (1, band, 1, 1) of the network.
        jitter: see `DAFormerAdaptation`.
    """
    jitters, blurs = torch.rand(2).tolist()
    gain, level = (2 * torch.rand(2, 1, images.shape[1], 1, 1) - 1).to(images.device) * jitter
    sigma = 0.15 + float(torch.rand(()))
    if jitters > 0.2:
        images = mean + (images - mean) * (1 + gain) + level * std
    return blur(images, sigma) if blurs > 0.5 else images


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of each band of (n, band, y, x), reflected at the edges."""
    radius = min(math.ceil(3 * sigma), min(images.shape[2:]) - 1)
    line = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    along_x = F.conv2d(padded, kernel, groups=images.shape[1])
    return F.conv2d(along_x, kernel.transpose(2, 3), groups=images.shape[1])


def _finer(mask: Tensor, factor: int) -> Tensor:
    """(n, y, x) -> (n, u y, u x)."""
    return mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def _mean_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy by weights, over all pixels: those without a label count in the mean, as published."""
    entropy = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE, reduction="none")
    return (entropy if weights is None else entropy * weights).mean()
