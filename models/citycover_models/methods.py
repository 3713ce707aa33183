"""Methods: which loss a paper puts on which network, as values that a recipe names.

The losses stand in their papers' files (`nets/`). A method here joins one to what its network gives, and says
what a paper's training needs beside the loss: a warm-up, a schedule of its own, roles that change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.data.labels import IGNORE
from citycover_models.nets.c2fnet import Shuffle, accepted_area, annotate, c2f_loss
from citycover_models.nets.l2hnet import cas_dva_loss
from citycover_models.nets.paraformer import plat_loss
from citycover_models.nets.vhf_paranet import nlat_loss


@dataclass(frozen=True, slots=True)
class Moment:
    """Where in the training a step is."""

    step: int
    steps: int
    epoch: int

    @property
    def progress(self) -> float:
        """0 at the first step, 1 after the last."""
        return self.step / self.steps


class _Method(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CrossEntropy(_Method):
    """Plain cross-entropy with the coarse label, on every head: the baseline that the others must beat."""

    name: Literal["ce"] = "ce"

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        heads = logits_of(network, images)
        return torch.stack([_cross_entropy(head, labels) for head in heads]).mean()


class Plat(_Method):
    """Pseudo-label-assisted training of Paraformer and VCNet; see `plat_loss`."""

    name: Literal["plat"] = "plat"
    weights: tuple[float, float] = (0.5, 0.5)
    aux_loss: Literal["ce", "dice"] = "ce"

    def __call__(self, network: Any, images: Tensor, labels: Tensor, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        cnn, vit = network.branches(images)
        return plat_loss(cnn, vit, labels, ignore=IGNORE, weights=self.weights, aux_loss=self.aux_loss)


class CasDva(_Method):
    """Confident areas and vague-area consistency of L2HNet; see `cas_dva_loss`.

    A network that knows nothing is confident in one class at best, and would learn that one for ever: plain
    cross-entropy comes first (citycover's interpretation; the public record does not say).
    """

    name: Literal["cas-dva"] = "cas-dva"
    cas: Literal["dynamic", "agree", "ot"] = "dynamic"
    gamma: float = 0.01
    warm_up: float = Field(default=0.2, ge=0, le=1)
    """Share of the training with plain cross-entropy."""

    def __call__(self, network: Any, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """The loss of one batch."""
        features = network.features(images)
        logits = network.head(features)
        if moment.progress < self.warm_up:
            return _cross_entropy(logits, labels)
        return cas_dva_loss(logits, features, labels, ignore=IGNORE, cas=self.cas, gamma=self.gamma)


class C2F(_Method):
    """UDSDA label selection and the coarse-to-fine loss of C2FNet; see `annotate` and `c2f_loss`."""

    name: Literal["c2f"] = "c2f"
    scales: tuple[int, ...] = (4, 8, 16)
    rounds: int = 4
    warm_up: float = Field(default=0.025, ge=0, le=1)
    """Share of the training in which every label is accepted (5 epochs of 200)."""
    quantiles: tuple[float, float] = (0.5, 0.2)
    """Share of each class that is not accepted, at the start and at the end."""

    def __call__(self, network: Any, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """The loss of one batch."""
        phi, coarse = network.embeddings(images)
        cosines = network.cosines(phi)
        if moment.progress < self.warm_up:
            p, accepted = torch.ones_like(labels, dtype=phi.dtype), labels != IGNORE
        else:
            shuffle = Shuffle(scales=self.scales, rounds=self.rounds)
            p = annotate(phi, network.classifier, labels, shuffle, ignore=IGNORE)
            first, last = self.quantiles
            quantile = first + (last - first) * moment.progress
            accepted = accepted_area(p, labels, quantile, ignore=IGNORE)
        return c2f_loss(cosines, phi, coarse, labels, p, accepted, ignore=IGNORE)


class Nlat(_Method):
    """Noise-label-assisted training of VHF-ParaNet; see `nlat_loss`."""

    name: Literal["nlat"] = "nlat"
    symmetric: bool = False
    """The branches change roles every other epoch."""

    def __call__(self, network: Any, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """The loss of one batch."""
        cnn, vit = network.branches(images)
        return nlat_loss(cnn, vit, labels, ignore=IGNORE, swap=self.symmetric and moment.epoch % 2 == 1)


Method = Annotated[CrossEntropy | Plat | CasDva | C2F | Nlat, Field(discriminator="name")]

NEEDS = {"ce": "forward", "plat": "branches", "cas-dva": "features", "c2f": "embeddings", "nlat": "branches"}
"""What a network must have for a method."""


def logits_of(network: Any, images: Tensor) -> list[Tensor]:
    """Logits of every head that classifies pixels: one, or two where a network has two branches."""
    if hasattr(network, "branches"):
        return list(network.branches(images))
    return [network(images)]


class Lesson(nn.Module):
    """A network with its method: one call, one loss, which is what DistributedDataParallel can wrap.

    Args:
        network: takes raw digital numbers.
        method: the loss.
    """

    def __init__(self, network: nn.Module, method: Method) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.first_class = int(getattr(network, "first_class", 0))
        """Channel where the classes begin: 1 in heads with a void channel."""

    def forward(self, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """Raw (n, b, y, x) and (n, y, x) channels -> loss."""
        if self.first_class:
            labels = labels.where(labels == IGNORE, labels + self.first_class)
        return self.method(self.network, images, labels, moment)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over labelled pixels; 0 where there are none."""
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)
