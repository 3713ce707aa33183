"""A network and a method as one module, so that a step is one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from citycover_models.blocks.learnable import Learnable
from citycover_models.data.batches import LabelledBatch
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
        self, network: Learnable, method: Method, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.first_class = network.first_class
        self.class_weights: Tensor | None
        weights = [0.0] * self.first_class + list(class_weights) if class_weights else None
        self.register_buffer("class_weights", torch.tensor(weights) if weights else None, persistent=False)

    def forward(self, images: Tensor, labels: Tensor, moment: Moment) -> Tensor:
        """Raw (n, b, y, x) and (n, y, x) channels -> loss."""
        if self.first_class:
            labels = labels.where(labels == IGNORE, labels + self.first_class)
        network: Any = self.network  # `build_network` has seen that it gives what the method needs
        return self.method(network, LabelledBatch(images, labels, self.class_weights), moment)
