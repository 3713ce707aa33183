"""What a method is: a loss on what a network gives, and what a network must give for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.blocks.learnable import Learnable
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE


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


@runtime_checkable
class Branches(Protocol):
    """Two heads, each of which classifies pixels."""

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (n, band, y, x) -> logits of either head, (n, channel, y, x)."""


@runtime_checkable
class Features(Protocol):
    """Features at full resolution before the head."""

    def features(self, x: Tensor) -> Tensor:
        """Raw (n, band, y, x) -> (n, c, y, x)."""

    def classify(self, features: Tensor) -> Tensor:
        """(n, c, y, x) -> logits (n, channel, y, x)."""


@runtime_checkable
class Embeddings(Protocol):
    """Embeddings of pixels, a direction for each class, and a coarse head."""

    def embeddings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (n, band, y, x) -> (n, d, y, x) of length 1, and coarse logits (n, channel, y/s, x/s)."""

    def cosines(self, phi: Tensor) -> Tensor:
        """(n, d, y, x) -> cosines with the directions of the classes, (n, channel, y, x)."""

    def prototypes(self) -> Tensor:
        """Directions of the classes, (channel, d)."""


class BaseMethod(BaseModel):
    """A method with its settings, as a recipe names them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    needs: ClassVar[type] = Learnable
    """What a network must be or have: `Learnable`, or a Protocol of this file."""


class CrossEntropy(BaseMethod):
    """Plain cross-entropy with the coarse label, on every head: the baseline that the others must beat."""

    name: Literal["ce"] = "ce"

    def __call__(self, network: Learnable, batch: LabelledBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        return plain_loss(heads_of(network, batch.images), batch)


def heads_of(network: Learnable, images: Tensor) -> Sequence[Tensor]:
    """Logits of every head, each (n, channel, y, x)."""
    return network.branches(images) if isinstance(network, Branches) else [network(images)]


def plain_loss(heads: Sequence[Tensor], batch: LabelledBatch) -> Tensor:
    """Mean cross-entropy of all heads."""
    losses = [
        cross_entropy(head, batch.labels, ignore=IGNORE, class_weights=batch.class_weights) for head in heads
    ]
    return torch.stack(losses).mean()
