"""A network and a method as one module, so that a step is one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from citycover_models.data.batches import Batch, LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.coarse import Method
from citycover_models.methods.method import Moment


class Learner(nn.Module):
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
        self.first_class: int = getattr(network, "first_class", 0)
        self.class_weights: Tensor | None
        weights = [0.0] * self.first_class + list(class_weights) if class_weights else None
        self.register_buffer("class_weights", torch.tensor(weights) if weights else None, persistent=False)

    def forward(self, batch: Batch, moment: Moment) -> Tensor:
        """A batch on the device of the network -> loss."""
        if isinstance(batch, LabelledBatch):
            labels = batch.labels
            if self.first_class:
                labels = labels.where(labels == IGNORE, labels + self.first_class)
            batch = replace(batch, labels=labels, class_weights=self.class_weights)
        # That the network gives, and the batch holds, what the method needs was seen when both were made.
        method: Any = self.method
        return method(self.network, batch, moment)
