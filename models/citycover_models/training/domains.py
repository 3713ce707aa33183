"""Material of two domains: a source with labels, and a target without, which is what will be mapped.

source ─▶ CoarseMaterial ─▶ chips, labels ──────────────────────────┐
├─▶ one batch with both
target ─▶ plan of its valid pixels ─▶ chips ─┬─ nothing known ───────┤
└─ pseudo-labels ──────┘  made anew between stages
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from citycover.errors import ConfigError
from citycover.model.card import BandGroup, ModelCard
from citycover_models.data.batches import Batch, LabelledBatch, training_batches
from citycover_models.data.chips import ChipReader, as_planes
from citycover_models.data.pairs import Pair
from citycover_models.data.prepare import TargetDomain, TrainingSet
from citycover_models.data.sampling import BEYOND, SamplePlan
from citycover_models.data.statistics import (
    Measured,
    are_of_other_kinds,
    measure_bands,
    measure_statistics,
)
from citycover_models.data.targets import plan_targets
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.methods.lovecs import LoveCS
from citycover_models.methods.method import BaseMethod, Sight, Stage
from citycover_models.methods.table import methods_that_adapt
from citycover_models.training.coarse import CoarseMaterial
from citycover_models.training.judging import judge
from citycover_models.training.knowledge import Knowledge
from citycover_models.training.material import Conclusion, Material, Staged
from citycover_models.training.processes import Processes
from citycover_models.training.request import TrainRequest
from citycover_models.training.setup import check_chip, stamp_of
from citycover_models.training.target_labels import (
    keep_steadiness,
    label_targets,
    labelled_targets,
    steadiness_before,
)
from citycover_models.training.trainee import Trainee

logger = logging.getLogger(__name__)

_SETTLING = 64
"""Chips at most by which a network is settled on the target once its steps are done."""

_ANY = AerialStatistics((0.0,) * 3, (1.0,) * 3)

_FLAT = 0.002
"""Deviation of each band, in means, below which a target shows nothing."""


class DomainsMaterial(CoarseMaterial):
    """Source and target, as the loop sees them.

    Args:
        request: whose domains are learned from.
        training_set: the source.
        target: the other.

    Raises:
        ConfigError: a target holds nothing, or the domains differ more than the method can bridge.
    """

    def __init__(self, request: TrainRequest, training_set: TrainingSet, target: TargetDomain) -> None:
        self._target, self._method = target, request.recipe.method
        self._ratio = target.native_gsd / training_set.native_gsd
        super().__init__(request, training_set)
        _check_sizes(training_set, target, self._method, self._upscale)
        _check_ground(target, self._target_measured)  # before anything is written

    @property
    def _upscale(self) -> int:
        """Output pixels along the side of an input pixel of the network."""
        return int(self.preset.card().output_scale)

    def chip_scale(self) -> float:
        """How much source chips are enlarged."""
        return self._method.source_scale(self._ratio, self._upscale)

    @cached_property
    def target_plan(self) -> SamplePlan:
        """Which chips of the target stand beside those of the source."""
        scale = self._method.target_scale(self._ratio)
        if self._recipe.chip % self._upscale:
            with torch.device("meta"):  # not built yet, but what it takes is known without a weight
                check_chip(self._recipe.chip, self.preset.build_for(2, statistics=_ANY), self.preset.name)
        return plan_targets(
            self._target.pairs,
            chip=self._recipe.chip // self._upscale,  # the same ground in the target's pixels
            chips_per_epoch=self.plan.chips_per_epoch,
            seed=self._request.seed,
            scales=tuple(scale * factor for factor in self._recipe.rescale),
        )

    @cached_property
    def _target_measured(self) -> Measured:
        return measure_bands(self._target.pairs, self.target_plan)

    @cached_property
    def target_statistics(self) -> AerialStatistics:
        """Of the target's numbers; where it has no pixel, its mean stands."""
        return self._target_measured.rounded

    @cached_property
    def own_statistics(self) -> AerialStatistics:
        """Of the source's own numbers."""
        return measure_statistics(self._set.pairs, self.plan)

    @cached_property
    def statistics(self) -> AerialStatistics:
        """Of the numbers that the network is given: the target's where the source's are brought to them."""
        return self.target_statistics if self.is_brought else self.own_statistics

    @cached_property
    def is_brought(self) -> bool:
        """Whether source chips are brought to the target's mean and deviation: methods ask, or numbers do."""
        return self._method.matches or _differ_in_kind(self.own_statistics, self.target_statistics)

    @cached_property
    def reader(self) -> ChipReader:
        """Of chips of the source, in the numbers that the network is given."""
        brought = (self.own_statistics, self.statistics) if self.is_brought else None
        return ChipReader(self._set.pairs, self.statistics.mean, brought)

    def _target_reader(self, pairs: tuple[Pair, ...]) -> ChipReader:
        return ChipReader(pairs, self.target_statistics.mean)

    @property
    def identity(self) -> list[object]:
        """Both domains."""
        pairs = self._target.pairs
        targets = [(p.scene.identity, [stamp_of(path) for path in p.paths]) for p in pairs]
        return [*super().identity, targets]

    def describe(self) -> dict[str, Any]:
        """The plan of both domains, and when the target comes in."""
        steps = self._recipe.epochs * self.steps_per_epoch
        plans = self.plan, self.target_plan
        target = _describe_target(self._target, self._method, self._ratio, plans, steps)
        return super().describe() | {"target": target}

    def record(self) -> dict[str, Any]:
        """Both domains."""
        return super().record() | {"targets": [pair.name for pair in self._target.pairs]}

    def enter(self, stage: Stage, trainee: Trainee, processes: Processes) -> None:
        """Let the method prepare the network, and label the target where the stage needs it."""
        steps = self._recipe.epochs * self.steps_per_epoch
        for network in {id(n): n for n in (trainee.network, trainee.kept)}.values():
            self._method.enter(network, stage, steps)
        if stage.labelled:
            processes.first(lambda: self._label(trainee, processes.device, stage.first))

    def _label(self, trainee: Trainee, device: torch.device, step: int) -> None:
        assert isinstance(self._method, LoveCS), "stages of no other method are labelled"
        first = step == self._method.first(self._recipe.epochs * self.steps_per_epoch)
        own, found = self._method.labelling(trainee.kept.eval(), self._sight(device, step), first=first)
        if found:
            keep_steadiness(self._request.out, step, found)
        network, card = self._mapping_form(own, self._card(step, None))
        with torch.inference_mode():
            label_targets(
                self._target.pairs, network, card, self._method, self._request.out, device=device, step=step,
                stop=trainee.stop,
            )  # fmt: skip
        trainee.network.train()

    def batches(self, first: int, last: int, rank: int, world: int) -> Iterator[Batch]:
        """Chips of each step; all of one stage."""
        source = super().batches(first, last, rank, world)
        steps = self._recipe.epochs * self.steps_per_epoch
        stage = next(s for s in self._method.stages(steps) if s.first <= first < s.last)
        if not stage.target:
            yield from source
            return
        pairs = self._target.pairs
        if stage.labelled:
            pairs = labelled_targets(pairs, self._set.legend, self._request.out, stage.first)
        target = training_batches(
            self._target_reader(pairs), self.target_plan, batch=self._recipe.batch, first=first, last=last,
            workers=self._request.workers, least=0.0, rank=rank, world=world,
        )  # fmt: skip
        for own, other in zip(source, target, strict=True):
            assert isinstance(own, LabelledBatch), "these are the batches of coarse labels"
            yield replace(own, target=other)

    def vary(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Symmetries and light, of either domain on its own and in shares of its own deviation."""
        varied = self.varied_by(batch, self.statistics, generator)
        if varied.target is None:
            return varied
        return replace(varied, target=self.varied_by(varied.target, self.target_statistics, generator))

    def conclude(self, trainee: Trainee, steps: int) -> Conclusion:
        """Settle the network on the target, say what it knows of the source's labels, and judge it."""
        self._method.settle(trainee.kept, self._sight(next(trainee.kept.parameters()).device, steps))
        knowledge = self.know(trainee)
        card = self._card(steps, knowledge)
        network, card = self._mapping_form(trainee.kept.eval(), card)
        classes = len(self._set.legend.ids)
        test = judge(
            network, self._target.judged, self.target_statistics.mean, self.target_plan.chip, classes
        )
        ratio = self._ratio
        return Conclusion(
            card, knowledge, dict(test), lambda kept: self._method.form(kept, card, ratio).network
        )

    def _mapping_form(self, network: nn.Module, card: ModelCard) -> tuple[nn.Module, ModelCard]:
        """The network as it maps, with the card of that form."""
        form = self._method.form(network, card, self._ratio)
        fold = self.preset.fold
        return fold(form.network) if fold else form.network, ModelCard(**(dict(card) | form.fields))

    def _sight(self, device: torch.device, step: int) -> Sight:
        """Chips of the target that no step saw, and what was found of it before a step."""
        return Sight(partial(self._chips, device), self._ratio, steadiness_before(self._request.out, step))

    def _chips(self, device: torch.device) -> Iterator[LabelledBatch]:
        plan = replace(self.target_plan, scales=(1.0,))  # the method enlarges what it is shown itself
        reader, batch = self._target_reader(self._target.pairs), self._recipe.batch
        for first in range(0, min(_SETTLING, plan.chips_per_epoch), batch):
            chips = [reader.read(plan.draw(BEYOND, first + i)) for i in range(batch)]
            images = torch.stack([as_planes(pixels) for pixels, _ in chips])
            labels = torch.stack([torch.from_numpy(channels).long() for _, channels in chips])
            yield LabelledBatch(images, labels).to(device)

    def _card(self, steps: int, knowledge: Knowledge | None) -> ModelCard:
        """With the target's bands and ground sample distance: it is what is mapped."""
        card, (low, high) = super()._card(steps, knowledge), self._target.gsd
        fields = {
            "groups": (
                BandGroup(**(self._target.group.model_dump() | {"fill": self.target_statistics.mean})),
            ),
            "gsd": (low / 2, high * 2),
            "native_gsd": self._target.native_gsd,
            "training": f"{card.training}; adapted to {len(self._target.pairs)} target image(s)",
        }
        return ModelCard(**(dict(card) | fields))


def _differ_in_kind(own: AerialStatistics, other: AerialStatistics) -> bool:
    """Whether the target's numbers are of another kind than the source's, which is said."""
    if not are_of_other_kinds(own, other):
        return False
    theirs, ours = (", ".join(f"{d:g}" for d in statistics.std) for statistics in (other, own))
    logger.warning(
        "the target's numbers are of another kind than the source's (deviation %s beside %s): the source is "
        "brought to their mean and deviation, band by band", theirs, ours,
    )  # fmt: skip
    return True


def _check_ground(target: TargetDomain, seen: Measured) -> None:
    """Raise ConfigError if a target shows nothing."""
    if (seen.deviation <= _FLAT * np.abs(seen.mean)).all():
        raise ConfigError(
            f"target {target.pairs[0].name} shows one number nearly everywhere ("
            f"{', '.join(f'{m:g}' for m in seen.mean)}): cloud, or a file without a scene; needed is "
            "imagery of the ground; give another --target, or say with --nodata what is no pixel"
        )


def _describe_target(
    target: TargetDomain, method: BaseMethod, ratio: float, plans: tuple[SamplePlan, SamplePlan], steps: int
) -> dict[str, Any]:
    """What is planned for a target, as plain values; of the plans, the source's comes first."""
    stages = method.stages(steps)
    own, other = ([round(scale, 4) for scale in plan.scales] for plan in plans)
    return {
        "images": [pair.name for pair in target.pairs],
        "judged": len(target.judged),
        "gsd": round(target.native_gsd, 4),
        "gsd_ratio": round(ratio, 4),
        "source_enlarged": own,
        "enlarged": other,
        "mapped_enlarged": [round(scale, 4) for scale in method.scales_for(ratio)],
        "steps": steps,
        "first_step": next((stage.first for stage in stages if stage.target), None),
        "labelled_at_steps": [stage.first for stage in stages if stage.labelled],
    }


def _check_sizes(training_set: TrainingSet, target: TargetDomain, method: BaseMethod, upscale: int) -> None:
    """Raise ConfigError unless a method bridges the pixels of every two images, not of the mean alone."""
    sources = sorted(training_set.pairs, key=lambda pair: pair.scene.gsd)
    targets = sorted(target.pairs, key=lambda pair: pair.scene.gsd)
    for own, other in ((targets[0], sources[-1]), (targets[-1], sources[0])):
        ratio = own.scene.gsd / other.scene.gsd
        try:
            method.source_scale(ratio, upscale)
            method.target_scale(ratio)
        except ConfigError as error:
            raise ConfigError(
                f"target {own.name} has pixels of {own.scene.gsd:.3g} m, and {other.name} of "
                f"{other.scene.gsd:.3g} m: {error}"
            ) from None


def check_domains(request: TrainRequest, training_set: TrainingSet) -> None:
    """A method gets the domains that it takes.

    Raises:
        ConfigError: a target is missing, or of no use.
    """
    method, target = request.recipe.method, training_set.target
    if method.adapts and target is None:
        raise ConfigError(
            f"method {method.name!r} adapts to a target, and none is given; give --target, or a --folder "
            "with two domains"
        )
    if not method.adapts and target is not None:
        raise ConfigError(
            f"method {method.name!r} learns from one domain and a target is given; leave it out, or take a "
            f"method that adapts: {', '.join(methods_that_adapt())} (--set method.name=)"
        )


_: tuple[type[Material], type[Staged]] = (DomainsMaterial, DomainsMaterial)
