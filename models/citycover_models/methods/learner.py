"""A network and a method as one module, so that a step is one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from citycover_models.data.batches import Batch, LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.method import Company, Moment
from citycover_models.methods.table import Method


class Learner(nn.Module):
    """A network with its method: one call, one loss, which is what DistributedDataParallel can wrap.

    Args:
        network: takes raw digital numbers.
        method: the loss.
        class_weights: one a class, mean 1; None: all classes weigh the same.
        company: networks beside it, if the method has any.
    """

    def __init__(
        self,
        network: nn.Module,
        method: Method,
        class_weights: Sequence[float] | None = None,
        company: Company | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.company = company
        self.method = method
        self.first_class: int = getattr(network, "first_class", 0)
        self.class_weights: Tensor | None
        weights = [0.0] * self.first_class + list(class_weights) if class_weights else None
        self.register_buffer("class_weights", torch.tensor(weights) if weights else None, persistent=False)

    def forward(self, batch: Batch, moment: Moment) -> Tensor:
        """A batch on the device of the network -> loss."""
        if isinstance(batch, LabelledBatch):
            target = None if batch.target is None else self._for_heads(batch.target)
            batch = replace(self._for_heads(batch), class_weights=self.class_weights, target=target)
        # That the network gives, and the batch holds, what the method needs was seen when both were made.
        method: Any = self.method
        return method(self.network, batch, moment, *((self.company,) if self.company is not None else ()))

    def _for_heads(self, batch: LabelledBatch) -> LabelledBatch:
        """Channels as the heads count them: behind one for "no label", where they have one."""
        labels = batch.labels
        if self.first_class:
            labels = labels.where(labels == IGNORE, labels + self.first_class)
        return replace(batch, labels=labels)
