"""What a method is: a loss on what a network gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from citycover_models.blocks.cross_entropy import cross_entropy
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


class Lectured(NamedTuple):
    """What a method looks at."""

    images: Tensor
    """(n, band, y, x) raw digital numbers."""
    labels: Tensor
    """(n, y, x) output channels, or `IGNORE`."""
    class_weights: Tensor | None = None
    """(channel,)."""


class BaseMethod(BaseModel):
    """A method with its settings, as a recipe names them."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CrossEntropy(BaseMethod):
    """Plain cross-entropy with the coarse label, on every head: the baseline that the others must beat."""

    name: Literal["ce"] = "ce"

    def __call__(self, network: nn.Module, batch: Lectured, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        return plain_loss(logits_of(network, batch.images), batch)


NEEDS = {"ce": "forward", "plat": "branches", "cas-dva": "features", "c2f": "embeddings", "nlat": "branches"}
"""What a network must have for a method."""


def logits_of(network: Any, images: Tensor) -> list[Tensor]:
    """Logits of every head that classifies pixels: one, or two where a network has two branches."""
    if hasattr(network, "branches"):
        return list(network.branches(images))
    return [network(images)]


def plain_loss(heads: Sequence[Tensor], batch: Lectured) -> Tensor:
    """Mean cross-entropy of all heads."""
    losses = [
        cross_entropy(head, batch.labels, ignore=IGNORE, class_weights=batch.class_weights) for head in heads
    ]
    return torch.stack(losses).mean()
