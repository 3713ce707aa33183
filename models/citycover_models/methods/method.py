"""What a method is: a loss on what a network gives, and what a network must give for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from citycover.model.card import ModelCard
from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.blocks.domain_norm import copy_domain
from citycover_models.blocks.learnable import Learnable
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.trust import Steadiness


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


@runtime_checkable
class Sensors(Protocol):
    """Batch statistics of its own for each of several sensors (`blocks/domain_norm.py`)."""

    def look_as(self, domain: int) -> None:
        """Choose the sensor of what comes next."""

    def __call__(self, x: Tensor) -> Tensor:
        """Raw (n, band, y, x) of that sensor -> logits (n, channel, y, x)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps that see the same labels."""

    first: int
    last: int
    """One past the last step."""
    target: bool = False
    """Chips of the target stand beside those of the source."""
    labelled: bool = False
    """Before its first step the network labels the target anew."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a network becomes where it maps."""

    network: nn.Module
    fields: dict[str, Any] = field(default_factory=dict)
    """Of its card, that differ from the preset's."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The target, as a method sees it that settles a network on it."""

    chips: Callable[[], Iterator[LabelledBatch]]
    """That no step saw, in the target's pixels and on the network's device, from the first at each call;
    labelled 0 where they are valid."""
    ratio: float
    """Target's ground sample distance over the source's."""
    before: Sequence[Steadiness] = ()
    """What was found of it while it was labelled."""


class Company(nn.Module):
    """Networks that no gradient reaches, beside the one that learns.

    Args:
        teacher: follows the network that learns.
        reference: the encoder's first weights, frozen; None: they mean nothing.
        maps: whether it is the teacher's weights that count in the end.
    """

    def __init__(self, teacher: nn.Module, reference: nn.Module | None, *, maps: bool) -> None:
        super().__init__()
        self.teacher, self.reference, self.maps = teacher, reference, maps
        self.requires_grad_(requires_grad=False)


def some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Values, of which there is one at least; pydantic's own check counts those that are valid."""
    if not values:
        raise ValueError("got none; give one at least")
    return values


class BaseMethod(BaseModel):
    """A method with its settings, as a recipe names them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    needs: ClassVar[type] = Learnable
    """What a network must be or have: `Learnable`, or a Protocol of this file."""
    adapts: ClassVar[bool] = False
    """Whether it takes a target domain beside the source."""

    matches: ClassVar[bool] = False
    """Whether the source's numbers are brought to the mean and deviation of the target's, band by band."""

    def equip(self, network: nn.Module) -> None:
        """Give a network that was just built what this method alone needs."""

    def check_chip(self, _chip: int) -> None:
        """Raise ValueError where the settings leave nothing of a chip of so many pixels."""

    def source_scale(self, _ratio: float, _upscale: int) -> float:
        """How much source chips are enlarged.

        Args:
            _ratio: target's ground sample distance over the source's.
            _upscale: output pixels along the side of an input pixel of the network.
        """
        return 1.0

    def target_scale(self, _ratio: float) -> float:
        """How much target chips are enlarged."""
        return 1.0

    def scales_for(self, _ratio: float) -> tuple[float, ...]:
        """Enlargements at which a target is mapped whose pixels are `_ratio` times the source's."""
        return (1.0,)

    def company(self, _network: nn.Module, *, pretrained: bool) -> Company | None:  # noqa: ARG002 - for others
        """Networks beside the one that learns, made of its first weights; None: it learns alone.

        Args:
            _network: with the weights that it begins with, on its device.
            pretrained: whether these were given.
        """
        return None

    def see(self, network: nn.Module, *groups: Tensor) -> Tensor:
        """Raw (n, band, y, x) a band group, of the source -> scores on the grid of its labels."""
        scores: Tensor = network(*groups)
        return scores

    def stages(self, steps: int) -> tuple[Stage, ...]:
        """The training in parts, in order and without gaps."""
        return (Stage(0, steps, target=self.adapts),)

    def counts_from(self, steps: int) -> int:
        """The first step of what the method is for, of a training of so many steps.

        The criterion sees the source, or the coarse labels: a network that learned these alone may look best.
        So no weights of an earlier step are the best, and none are waited for.
        """
        kinds = [(stage.target, stage.labelled) for stage in self.stages(steps)]
        return self.stages(steps)[kinds.index(kinds[-1])].first

    def enter(self, network: nn.Module, stage: Stage, steps: int) -> None:
        """Make a network ready for the first step of a stage, of a training of so many steps."""

    def settle(self, network: nn.Module, _sight: Sight | None) -> None:
        """Do what is left once all steps are done.

        Args:
            network: whose weights count.
            _sight: of the target; None: there is none.
        """
        copy_domain(network)  # a sensor that was never seen: its statistics are those of the other

    def form(self, network: nn.Module, _card: ModelCard, _ratio: float) -> Form:
        """The network as it maps, before the preset folds it; the card is what it would have as it is."""
        return Form(network)


def first_after(warm_up: float, steps: int) -> int:
    """The first step after a share of them; 0 where nothing comes after it.

    >>> first_after(0.3, 10), first_after(0.31, 10), first_after(1.0, 10)
    (3, 4, 0)
    """
    first = math.ceil(warm_up * steps)
    return first if first < steps else 0


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
