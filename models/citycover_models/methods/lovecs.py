"""LoveCS: from a labelled sensor to another one, with the baselines that it must beat.

What the methods do stands in `nets/semantic_fpn.py` and `blocks/domain_norm.py`; here is when they do it.

    method        steps                                            statistics that it maps by
    source-only   source batches                                   the source's
    adabn         source batches                                   the target's, measured at the end
    csn           source batches, then target batches beside them  the target's, kept while training
    lovecs        the same, target batches with pseudo-labels      the same

The last three take `statistics`: the target's as they are, a share of them beside the source's, or the share
that `methods/trust.py` finds best.

Pseudo-labels are made of whole targets by `training/target_labels.py`, before the stages that `stages` names.
"""

from __future__ import annotations

import copy
import itertools
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from citycover.errors import ConfigError
from citycover.model.card import ModelCard
from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.blocks.domain_norm import (
    SOURCE,
    TARGET,
    blend_domains,
    copy_domain,
    reset_domain,
    set_domain,
)
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE
from citycover_models.methods.method import BaseMethod, Form, Moment, Sensors, Sight, Stage, plain_loss
from citycover_models.methods.trust import Steadiness, best_share, look
from citycover_models.nets.semantic_fpn import MultiScale, Score, SemanticFPN, scales_between

FARTHEST = 8.0
"""Ratio of ground sample distances, either way, beyond which no enlargement bridges two sensors."""

_LARGEST = 2 * FARTHEST
"""Enlargement at most: beyond it a window of a map would not fit into memory."""

_ENLARGED_WINDOW = 256
"""Side of the windows of a map whose network enlarges them."""


class _CrossSensor(BaseMethod):
    """What the four have in common: the target is looked at enlarged, as its pixels are larger."""

    needs: ClassVar[type] = Sensors
    adapts: ClassVar[bool] = True
    scales: tuple[Annotated[float, Field(ge=0.5, le=_LARGEST)], ...] = ()
    """Enlargements at which the target is labelled and mapped; none: from the two ground sample distances."""
    score: Score = "probability"
    """What is averaged over the enlargements; `logit` as the public code does."""

    def scales_for(self, ratio: float) -> tuple[float, ...]:
        """Enlargements for targets whose pixels are `ratio` times as large.

        Raises:
            ConfigError: the ratio is more than can be bridged.
        """
        if not 1 / FARTHEST <= ratio <= FARTHEST:
            raise ConfigError(
                f"pixels of the target are {ratio:.3g} times as large as those of the source; {self.name} "  # type: ignore[attr-defined]
                f"bridges 1/{FARTHEST:g} to {FARTHEST:g} times; resample one of the two, or train daspm"
            )
        return self.scales or scales_between(ratio)

    def target_scale(self, ratio: float) -> float:
        """As they are, if the ratio can be bridged at all."""
        self.scales_for(ratio)
        return 1.0

    def stages(self, steps: int) -> tuple[Stage, ...]:
        """The source alone, from beginning to end."""
        return (Stage(0, steps),)

    def __call__(self, network: Sensors, batch: LabelledBatch, _moment: Moment) -> Tensor:
        """The loss of one batch."""
        return plain_loss([network(batch.images)], batch)

    def form(self, network: nn.Module, card: ModelCard, ratio: float) -> Form:
        """Windows seen at several enlargements."""
        scales = self.scales_for(ratio)
        if scales == (1.0,):
            return Form(network)
        fields: dict[str, Any] = {}
        if self.score == "probability":
            fields["activation"] = "probabilities"
        if max(scales) > 1.5 and card.window.size > _ENLARGED_WINDOW:
            fields["window"] = card.window.model_copy(update={"size": _ENLARGED_WINDOW})
        return Form(MultiScale(network, scales, self.score), fields)


class SourceOnly(_CrossSensor):
    """The source's weights and statistics, as if the target were the source."""

    name: Literal["source-only"] = "source-only"


class _TargetStatistics(_CrossSensor):
    """Methods that map by statistics of the target."""

    measures: ClassVar[bool] = False
    """Whether they are measured once all steps are done, or were kept on the way."""
    statistics: Literal["target", "auto"] | float = "target"
    """Which: the target's as they are, as published; a share of them, beside the source's; or the share of
    `methods/trust.py`, found without labels."""

    @field_validator("statistics", mode="before")
    @classmethod
    def _words_or_share(cls, given: object) -> object:
        number = isinstance(given, float | int) and not isinstance(given, bool)
        if given in ("target", "auto") or (number and 0 <= given <= 1):  # type: ignore[operator]
            return given
        raise ValueError(f"{given!r} is neither 'target' nor 'auto' nor a share from 0 to 1")

    def trust(self, network: nn.Module, sight: Sight) -> Steadiness:
        """Mix the source's statistics into the target's, as far as `statistics` asks for.

        Returns:
            What `auto` found; nothing where it was not asked for.
        """
        if self.statistics == "auto":
            scale = self._middle(sight.ratio)
            found = look(network, sight.chips(), lambda mixed: MultiScale(mixed, (scale,), "logit"))
            blend_domains(network, best_share(found, sight.before))
            return found
        if self.statistics != "target":
            blend_domains(network, self.statistics)
        return {}

    def settle(self, network: nn.Module, sight: Sight | None) -> None:
        """Trust the target's statistics as far as is asked for, once they are there."""
        assert sight is not None, "the method adapts"
        if self.measures:
            self.measure(network, sight)
        self.trust(network, sight)

    def _middle(self, ratio: float) -> float:
        scales = sorted(self.scales_for(ratio))
        return scales[len(scales) // 2]

    def measure(self, network: nn.Module, sight: Sight) -> None:
        """Give the target the mean of its chips' statistics, at every enlargement at which it is mapped."""
        reset_domain(network, TARGET)
        set_domain(network, TARGET)
        seen = MultiScale(network.train(), self.scales_for(sight.ratio), self.score)
        with torch.no_grad():
            for batch in sight.chips():
                seen(batch.images)
        set_domain(network.eval(), SOURCE)


class AdaBN(_TargetStatistics):
    """The source's weights with batch statistics of the target (Li et al. 2016, arXiv:1603.04779)."""

    name: Literal["adabn"] = "adabn"
    measures: ClassVar[bool] = True


class _TwoSensors(_TargetStatistics):
    """Both sensors in one step, each with its own statistics, once the source is known."""

    warm_up: float = Field(default=2 / 3, ge=0, lt=1)
    """Share of the training with the source alone (10,000 of 15,000 steps)."""
    enlarge: bool = True
    """While training too, target chips are seen as they are mapped: enlarged by the middle of the
    enlargements. False as published."""

    def first(self, steps: int) -> int:
        """The first step with the target, which comes in for the last step at least."""
        return min(round(self.warm_up * steps), steps - 1)

    def target_scale(self, ratio: float) -> float:
        """The middle of the enlargements, where chips are enlarged at all."""
        middle = self._middle(ratio)  # which also says whether the ratio can be bridged
        return middle if self.enlarge else 1.0

    def enter(self, network: nn.Module, stage: Stage, steps: int) -> None:
        """The target begins with the source's statistics."""
        if stage.first == self.first(steps):
            copy_domain(network)


class CSN(_TwoSensors):
    """Cross-Sensor Normalisation without labels of the target: chips of it move its statistics, no weight."""

    name: Literal["csn"] = "csn"

    def stages(self, steps: int) -> tuple[Stage, ...]:
        """The source alone, then both."""
        first = self.first(steps)
        return (*((Stage(0, first),) if first else ()), Stage(first, steps, target=True))

    def __call__(self, network: Sensors, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch."""
        if batch.target is not None:
            network.look_as(TARGET)
            with torch.no_grad():
                network(batch.target.images)
            network.look_as(SOURCE)
        return super().__call__(network, batch, moment)


class LoveCS(_TwoSensors):
    """CSN and self-training with pseudo-labels of the whole target, made anew now and then."""

    name: Literal["lovecs"] = "lovecs"
    relabel: float = Field(default=2 / 15, ge=1e-4, le=1)
    """Share of the training between two labellings (2,000 of 15,000 steps)."""
    portion: float = Field(default=0.1, gt=0, le=1)
    """p: share of each class of the target that is believed."""
    weight: float = Field(default=0.5, ge=0, le=1e6)
    """Of the target's cross-entropy."""

    def stages(self, steps: int) -> tuple[Stage, ...]:
        """The source alone, then parts that each begin with new labels of the target."""
        first = self.first(steps)
        starts = [*range(first, steps, max(1, round(self.relabel * steps))), steps]
        parts = (Stage(a, b, target=True, labelled=True) for a, b in itertools.pairwise(starts))
        return (*((Stage(0, first),) if first else ()), *parts)

    def labelling(self, network: nn.Module, sight: Sight, *, first: bool) -> tuple[nn.Module, Steadiness]:
        """The network by whose statistics the target is labelled: itself, or a copy that trusts them less.

        Args:
            network: that learns.
            sight: of the target.
            first: no step has seen the target yet: its statistics are the source's.

        Returns:
            The network, and what `auto` found.
        """
        if self.statistics == "target":
            return network, {}
        own = copy.deepcopy(network)
        if first:
            self.measure(own, sight)
        return own, self.trust(own, sight)

    def __call__(self, network: Sensors, batch: LabelledBatch, moment: Moment) -> Tensor:
        """The loss of one batch: L = CE(source) + 0.5 CE(target, pseudo-labels)."""
        loss = super().__call__(network, batch, moment)
        if batch.target is None:
            return loss
        network.look_as(TARGET)
        logits = network(batch.target.images)
        network.look_as(SOURCE)
        return loss + self.weight * cross_entropy(logits, batch.target.labels, ignore=IGNORE)


_sensors: type[Sensors] = SemanticFPN
