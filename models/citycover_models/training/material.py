"""What a training learns from, as the loop sees it: the seam between the one loop and the kinds of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from citycover.model.card import ModelCard
from citycover_models.catalogue.preset import Preset
from citycover_models.data.batches import Batch
from citycover_models.methods.method import Stage
from citycover_models.training.knowledge import Knowledge
from citycover_models.training.processes import Processes
from citycover_models.training.trainee import Trainee


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What is said of a network at the end of its training."""

    card: ModelCard
    knowledge: Knowledge | None = None
    """What it knows of coarse labels; None: it had none."""
    test: dict[str, Any] = field(default_factory=dict)
    """Figures on a part that was set aside for this; empty: there is none."""
    form: Callable[[nn.Module], nn.Module] = lambda network: network
    """Makes the network that maps out of the one whose weights are kept."""


class Material(Protocol):
    """Data of one kind with their plan: batches of a step, how they are varied, how a network is judged."""

    criterion: str
    """Which of `judge`'s figures says whether a network became better; higher is."""
    title: str
    """What it is called in figures."""

    @property
    def preset(self) -> Preset:
        """Of the network that learns."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""

    @property
    def class_weights(self) -> Sequence[float] | None:
        """One a class, mean 1; None: all weigh the same."""

    @property
    def identity(self) -> list[object]:
        """Plain values that change when anything that is learned from does."""

    def describe(self) -> dict[str, Any]:
        """The plan as plain values."""

    def record(self) -> dict[str, Any]:
        """What `plan.json` says of the data."""

    def warn(self) -> None:
        """Say what the data lack."""

    def network(self) -> nn.Module:
        """The network of the recipe for these data, with random weights.

        Raises:
            ConfigError: recipe, method and network do not fit.
        """

    def measured(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """Buffers of a new network that hold measures of these data: weights given do not replace them."""

    def batches(self, first: int, last: int, rank: int, world: int) -> Iterator[Batch]:
        """Batches of the steps `first` to `last`, the share of one process of several."""

    def vary(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The augmentation of the recipe, on the batch's device."""

    def judge(self, trainee: Trainee, figure: Path) -> dict[str, float]:
        """Figures on what was held out, {} where nothing was; draws `figure`."""

    def conclude(self, trainee: Trainee, steps: int) -> Conclusion:
        """Look at the network whose weights are kept once more, and describe it."""


@runtime_checkable
class Staged(Protocol):
    """Material that changes between stages of a training (`BaseMethod.stages`)."""

    def enter(self, stage: Stage, trainee: Trainee, processes: Processes) -> None:
        """Make everything ready for the first step of a stage."""
