"""Material of coarse labels: chips of images, judged by labels that were held out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from citycover.errors import ConfigError
from citycover.model.card import BandGroup, ModelCard
from citycover.version import __version__
from citycover_models.blocks.learnable import Learnable
from citycover_models.catalogue.preset import AerialPreset
from citycover_models.catalogue.registry import find_aerial
from citycover_models.data.batches import Batch, LabelledBatch, training_batches
from citycover_models.data.chips import ChipReader
from citycover_models.data.prepare import TrainingSet
from citycover_models.data.sampling import SamplePlan, plan_samples
from citycover_models.data.statistics import measure_statistics
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.training.judging import judge
from citycover_models.training.knowledge import Knowledge, measure_knowledge
from citycover_models.training.material import Conclusion, Material
from citycover_models.training.request import TrainRequest
from citycover_models.training.setup import build_network, class_weights_of, stamp_of
from citycover_models.training.trainee import Trainee
from citycover_models.training.validation import validate

logger = logging.getLogger(__name__)


class CoarseMaterial:
    """Images with coarse labels, as the loop sees them.

    Args:
        request: whose training set is learned from.
        training_set: that one.
    """

    criterion = "validation_miou"
    title = "mIoU with held-out coarse labels"

    def __init__(self, request: TrainRequest, training_set: TrainingSet) -> None:
        self._request, self._recipe, self._set = request, request.recipe, training_set
        self.preset: AerialPreset = find_aerial(request.recipe.network)
        self.class_weights = class_weights_of(self.plan, self._recipe)

    @cached_property
    def plan(self) -> SamplePlan:
        """Which chips a training sees."""
        return plan_of(self._request, self._set, self.chip_scale())

    @cached_property
    def statistics(self) -> AerialStatistics:
        """Of the bands."""
        return measure_statistics(self._set.pairs, self.plan)

    def chip_scale(self) -> float:
        """How much chips are enlarged, beside what the recipe varies."""
        return 1.0

    @cached_property
    def reader(self) -> ChipReader:
        """Of the chips."""
        return ChipReader(self._set.pairs, self.statistics.mean)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return self.plan.chips_per_epoch // self._recipe.batch

    @property
    def identity(self) -> list[object]:
        """Images, labels and legend."""
        return [
            [
                (p.scene.identity, p.labels, [stamp_of(path) for path in p.paths], p.agree)
                for p in self._set.pairs
            ],
            self._set.legend.ids,
        ]

    def describe(self) -> dict[str, Any]:
        """The plan of the chips."""
        return self.plan.describe()

    def record(self) -> dict[str, Any]:
        """Images, labels and statistics."""
        return {
            "images": [pair.name for pair in self._set.pairs],
            "labels": [[raster.path for raster in pair.labels] for pair in self._set.pairs],
            "credits": [asdict(credit) for credit in self._set.credits],
            "band_mean": self.statistics.mean,
            "band_std": self.statistics.std,
        }

    def warn(self) -> None:
        """Say what the plan lacks: classes, or anything to stop early by."""
        if self._recipe.patience and not self.plan.validation:
            logger.warning("no image has room for chips that are held out: training will not stop early")
        counts = zip(self._set.legend.names, self.plan.label_counts, strict=True)
        if empty := [name for name, count in counts if count == 0]:
            logger.warning("no label means %s: the map will not hold them", ", ".join(empty))

    def network(self) -> Learnable:
        """Built for these bands and classes."""
        return build_network(self.preset, self._recipe, len(self._set.legend.ids), self.statistics)

    def measured(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """Means and deviations of the bands."""
        return {k: v.clone() for k, v in network.named_buffers() if "normalise" in k}

    def batches(self, first: int, last: int, rank: int, world: int) -> Iterator[Batch]:
        """Chips of each step."""
        return training_batches(
            self.reader,
            self.plan,
            batch=self._recipe.batch,
            first=first,
            last=last,
            workers=self._request.workers,
            rank=rank,
            world=world,
        )

    def vary(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Symmetries and light."""
        return self.varied_by(batch, self.statistics, generator)

    def varied_by(
        self, batch: Batch, statistics: AerialStatistics, generator: torch.Generator
    ) -> LabelledBatch:
        """Symmetries, and light in shares of the mean and deviation of these bands."""
        assert isinstance(batch, LabelledBatch), "these are the batches of this material"
        mean, std = (
            torch.tensor(row, device=batch.images.device).view(1, -1, 1, 1)
            for row in (statistics.mean, statistics.std)
        )
        return self._recipe.augment(batch, mean, std, generator)

    def judge(self, trainee: Trainee, figure: Path) -> dict[str, float]:
        """Agreement with held-out labels."""
        return validate(trainee, self.reader, self.plan, self._set.legend, self._recipe.batch, figure)

    def conclude(self, trainee: Trainee, steps: int) -> Conclusion:
        """What it knows of its labels, and its card."""
        self._recipe.method.settle(trainee.kept, None)
        knowledge = self.know(trainee)
        kept, classes = trainee.kept.eval(), len(self._set.legend.ids)
        test = judge(kept, self._set.judged, self.statistics.mean, self._recipe.chip, classes, "truth")
        return Conclusion(self._card(steps, knowledge), knowledge, dict(test))

    def know(self, trainee: Trainee) -> Knowledge:
        """What a network must know of itself before labels can be weighed against it."""
        return measure_knowledge(trainee.score, self.reader, self.plan, self._set.pairs)

    def _card(self, steps: int, knowledge: Knowledge | None) -> ModelCard:
        """The preset's card with the bands, classes and history of this training."""
        training_set, recipe, template = self._set, self._recipe, self.preset.card()
        low, high = training_set.gsd
        labels = sorted({raster.legend for pair in training_set.pairs for raster in pair.labels})
        history = (
            f"recipe {recipe.name} ({recipe.network}, {recipe.method.name}), {steps} steps of {recipe.batch} "
            f"chips of {recipe.chip} px from {len(training_set.pairs)} image(s) with {', '.join(labels)} "
            f"labels, seed {self._request.seed}, citycover {__version__}"
            + "".join(f"; {credit.attribution} ({credit.licence})" for credit in training_set.credits)
        )
        fields = dict(template) | {
            "name": recipe.name,
            "description": recipe.title or template.description,
            "groups": (BandGroup(**(training_set.group.model_dump() | {"fill": self.statistics.mean})),),
            "gsd": (low / 2, high * 2),
            "native_gsd": training_set.native_gsd,
            "channels": training_set.legend.ids,
            "legend": training_set.legend,
            "training": history,
            **(knowledge.fields if knowledge else {}),
        }
        return ModelCard(**fields)


def plan_of(request: TrainRequest, training_set: TrainingSet, scale: float = 1.0) -> SamplePlan:
    """Which chips a training would see, enlarged by `scale` and by what the recipe draws.

    Raises:
        ConfigError: no pixel has a label, or all have the same.
    """
    recipe = request.recipe
    plan = plan_samples(
        training_set.pairs,
        len(training_set.legend.ids),
        chip=recipe.chip,
        chips_per_epoch=recipe.epoch_chips(len(training_set.pairs)),
        balance=recipe.balance,
        validation=recipe.validation,
        seed=request.seed,
        scales=tuple(scale * factor for factor in recipe.rescale),
        temperature=recipe.rare_temperature,
        held_scale=scale,
    )
    legend, found = training_set.legend, plan.label_counts.nonzero()[0]
    if len(found) == 1 and len(legend.ids) > 1:
        raise ConfigError(
            f"every label says {legend.names[found[0]]!r}, which teaches to tell nothing from it; give "
            "labels of several classes, check the legend that they are written in, or learn another with --to"
        )
    return plan


_: type[Material] = CoarseMaterial
