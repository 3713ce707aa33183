"""The network that learns: its weights, their running mean, and the optimiser that moves them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from citycover.errors import ConfigError, StoppedError
from citycover_models.blocks.learnable import Learnable
from citycover_models.data.batches import Batch
from citycover_models.methods.learner import Learner
from citycover_models.methods.method import Moment
from citycover_models.training.checkpoint import Checkpoint
from citycover_models.training.processes import Processes
from citycover_models.training.recipe import Recipe
from citycover_models.training.setup import make_optimiser, running_mean


class Trainee:
    """A network on its device, in one process or in each of several.

    Args:
        network: with the weights to begin with.
        recipe: method, optimiser, and whether a running mean is kept.
        class_weights: see `Learner`.
        processes: that learn together.
        pretrained: whether the weights were given.
        stop: whoever started the training sets it to end it.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        class_weights: Sequence[float] | None,
        processes: Processes,
        *,
        pretrained: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self.stop = stop or threading.Event()
        self._recipe, self._device = recipe, processes.device
        self.network = network
        network.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._company = recipe.method.company(network, pretrained=pretrained)
        learner = Learner(network, recipe.method, class_weights, self._company)
        self._learner: nn.Module = learner.to(processes.device)
        if processes.world > 1:
            idle = recipe.method.needs is Learnable  # leaves alone what only other methods use: coarse heads
            self._learner = DistributedDataParallel(self._learner, find_unused_parameters=idle)
        self._optimiser = make_optimiser(recipe.optimiser, network)
        self._mean = running_mean(network, recipe.ema)

    @property
    def kept(self) -> nn.Module:
        """The network whose weights count: the teacher if it maps, or the running mean if there is one."""
        if self._company is not None and self._company.maps:
            return self._company.teacher
        return self._mean.module if self._mean is not None else self.network

    @property
    def rate(self) -> float:
        """Learning rate of the last move."""
        return float(self._optimiser.param_groups[0]["lr"])

    @property
    def sound(self) -> bool:
        """Whether every weight is a finite number."""
        return all(bool(p.isfinite().all()) for p in self.network.parameters())

    def precision(self) -> Any:
        """A context: bf16 where recipe and device allow it."""
        fast = self._device.type == "cuda" and torch.cuda.is_bf16_supported()
        if self._recipe.amp == "auto" and fast:
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()

    def loss(self, batch: Batch, moment: Moment) -> Tensor:
        """What the method says of a batch on the device.

        Raises:
            ConfigError: the batch leaves batch normalisation nothing to compare.
        """
        try:
            with self.precision():
                loss: Tensor = self._learner(batch, moment)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigError(
                f"a batch of {self._recipe.batch} chips of {self._recipe.chip} px leaves one value a channel "
                "of this network, which cannot be normalised; give larger ones: --set batch= or --set chip="
            ) from None
        return loss

    def score(self, *groups: Tensor) -> Tensor:
        """Raw (n, band, y, x) a band group -> scores by the weights that count, on the grid of its labels.

        Raises:
            StoppedError: the training is to end; judging may take longer than learning.
        """
        self.heed_stop()
        with self.precision():
            here = (group.to(self._device) for group in groups)
            scores: Tensor = self._recipe.method.see(self.kept.eval(), *here)
        return scores

    def heed_stop(self) -> None:
        """Raise StoppedError if the training is to end: what comes is done again from the checkpoint."""
        if self.stop.is_set():
            raise StoppedError

    def move(self, rate: float) -> None:
        """One step of the optimiser with the gradients that were gathered."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        if self._recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._mean is not None:
            self._mean.update_parameters(self.network)

    def restore(self, state: Checkpoint) -> None:
        """Become what a checkpoint holds."""
        self.network.load_state_dict(state.network)
        self._optimiser.load_state_dict(state.optimiser)
        if self._mean is not None and state.mean is not None:
            self._mean.load_state_dict(state.mean)
        if self._company is not None and state.teacher is not None:
            self._company.teacher.load_state_dict(state.teacher)
        for name, weight in self.network.named_parameters():
            if name in state.gradients:
                weight.grad = torch.empty_like(weight).copy_(state.gradients[name])

    def store(self, state: Checkpoint, *, gathering: bool) -> None:
        """Put everything into a checkpoint; gradients too while they are being gathered."""
        state.network = self.network.state_dict()
        state.optimiser = self._optimiser.state_dict()
        state.mean = self._mean.state_dict() if self._mean is not None else None
        state.teacher = self._company.teacher.state_dict() if self._company is not None else None
        weights = self.network.named_parameters() if gathering else ()
        state.gradients = {name: w.grad for name, w in weights if w.grad is not None}
