"""Methods: which loss a paper puts on which network, as values that a recipe names.

The losses stand in their papers' files (`nets/`). A method here joins one to what its network gives, and says
what a paper's training needs beside the loss: a warm-up, a schedule of its own, roles that change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.data.labels import IGNORE
from citycover_models.nets.c2fnet import c2f_loss, choose_labels
from citycover_models.nets.l2hnet import Selector, cas_dva_loss
from citycover_models.nets.paraformer import plat_loss
from citycover_models.nets.udsda import Shuffle
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


class Lectured(NamedTuple):
    """What a method looks at."""

    images: Tensor
    """(n, band, y, x) raw digital numbers."""
    labels: Tensor
    """(n, y, x) output channels, or `IGNORE`."""
    class_weights: Tensor | None = None
    """(channel,)."""


class _Method(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CrossEntropy(_Method):
    """Plain cross-entropy with the coarse label, on every head: the baseline that the others must beat."""

    name: Literal["ce"] = "ce"

    def __call__(self, network: nn.Module, batch: Lectured, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        return _plain(logits_of(network, batch.images), batch)


class _Selecting(_Method):
    """A method that believes some labels and not others.

    What it needs beside its paper is citycover's own: a network that knows nothing yet agrees with its labels
    by chance, in one class at best, and would learn that one for ever. So plain cross-entropy comes first,
    and what is selected may keep the shares of the classes.
    """

    warm_up: float = Field(default=0.0, ge=0, le=1)
    """Share of the training with plain cross-entropy; 0 as published."""
    keep_shares: bool = False
    """Rescale what is selected to the class shares of the labels; False as published."""

    def begins(self, moment: Moment) -> bool:
        """Whether the training is still in its warm-up."""
        return moment.progress < self.warm_up


class Plat(_Selecting):
    """Pseudo-label-assisted training of Paraformer and VCNet; see `plat_loss`."""

    name: Literal["plat"] = "plat"
    weights: tuple[float, float] = (0.5, 0.5)
    aux_loss: Literal["ce", "dice"] = "ce"

    def __call__(self, network: Any, batch: Lectured, moment: Moment) -> Tensor:
        """The loss of one batch."""
        cnn, vit = network.branches(batch.images)
        if self.begins(moment):
            return _plain([cnn, vit], batch)
        return plat_loss(
            cnn, vit, batch.labels, ignore=IGNORE, weights=self.weights, aux_loss=self.aux_loss,
            keep_shares=self.keep_shares, class_weights=batch.class_weights,
        )  # fmt: skip


class CasDva(_Selecting):
    """Confident areas and vague-area consistency of L2HNet; see `cas_dva_loss`."""

    name: Literal["cas-dva"] = "cas-dva"
    cas: Selector = "dynamic"
    gamma: float = 0.01

    def __call__(self, network: Any, batch: Lectured, moment: Moment) -> Tensor:
        """The loss of one batch."""
        features = network.features(batch.images)
        logits = network.head(features)
        if self.begins(moment):
            return _plain([logits], batch)
        return cas_dva_loss(
            logits, features, batch.labels, ignore=IGNORE, cas=self.cas, gamma=self.gamma,
            keep_shares=self.keep_shares, class_weights=batch.class_weights,
        )  # fmt: skip


class C2F(_Method):
    """UDSDA label selection and the coarse-to-fine loss of C2FNet; see `annotate` and `c2f_loss`.

    Its selection takes a share of every class, so shares are kept as they are.
    """

    name: Literal["c2f"] = "c2f"
    scales: tuple[int, ...] = (4, 8, 16)
    rounds: int = 4
    warm_up: float = Field(default=0.025, ge=0, le=1)
    """Share of the training in which every label is accepted (5 epochs of 200)."""
    quantiles: tuple[float, float] = (0.5, 0.2)
    """Share of each class that is not accepted, at the start and at the end."""

    def __call__(self, network: Any, batch: Lectured, moment: Moment) -> Tensor:
        """The loss of one batch."""
        labels = batch.labels
        phi, coarse = network.embeddings(batch.images)
        cosines = network.cosines(phi)
        first, last = self.quantiles
        p, accepted = choose_labels(
            cosines,
            phi,
            network.classifier,
            labels,
            first + (last - first) * moment.progress,
            udsda="off" if moment.progress < self.warm_up else "shuffle_diag",
            shuffle=Shuffle(scales=self.scales, rounds=self.rounds),
            ignore=IGNORE,
        )
        if batch.class_weights is not None:
            p = p * batch.class_weights[labels.where(labels != IGNORE, 0)]
        return c2f_loss(cosines, phi, coarse, labels, p, accepted, ignore=IGNORE)


class Nlat(_Selecting):
    """Noise-label-assisted training of VHF-ParaNet; see `nlat_loss`."""

    name: Literal["nlat"] = "nlat"
    symmetric: bool = False
    """The branches change roles every other epoch."""

    def __call__(self, network: Any, batch: Lectured, moment: Moment) -> Tensor:
        """The loss of one batch."""
        cnn, vit = network.branches(batch.images)
        if self.begins(moment):
            return _plain([cnn, vit], batch)
        return nlat_loss(
            cnn, vit, batch.labels, ignore=IGNORE, swap=self.symmetric and moment.epoch % 2 == 1,
            keep_shares=self.keep_shares, class_weights=batch.class_weights,
        )  # fmt: skip


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
        class_weights: one a class, mean 1; None: all classes weigh the same.
    """

    def __init__(
        self, network: nn.Module, method: Method, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.first_class = int(getattr(network, "first_class", 0))
        """Channel where the classes begin: 1 in heads with a void channel."""
        self.class_weights: Tensor | None
        weights = [0.0] * self.first_class + list(class_weights) if class_weights else None
        self.register_buffer("class_weights", torch.tensor(weights) if weights else None, persistent=False)

    def forward(self, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """Raw (n, b, y, x) and (n, y, x) channels -> loss."""
        if self.first_class:
            labels = labels.where(labels == IGNORE, labels + self.first_class)
        return self.method(self.network, Lectured(images, labels, self.class_weights), moment)


def _plain(heads: Sequence[Tensor], batch: Lectured) -> Tensor:
    """Mean cross-entropy of all heads."""
    losses = [
        cross_entropy(head, batch.labels, ignore=IGNORE, class_weights=batch.class_weights) for head in heads
    ]
    return torch.stack(losses).mean()
