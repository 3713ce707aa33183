"""Material of patches: scenes with labels, judged by figures of several labels, or of pixels.

PatchSet ─▶ PatchSource (train) ─▶ batches ─▶ varied ─▶ the loop
                 ├─ means and deviations of the bands ─▶ normalisation of the network
                 └─ which labels meet ────────────────▶ its label branch
validation, test ─▶ scores ─▶ figures; what is tested on is looked at once, at the end
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from citycover.errors import ConfigError
from citycover.evaluate.multilabel import label_distance, score_labels
from citycover.model.card import BandGroup, ModelCard
from citycover.version import __version__
from citycover_models.catalogue.preset import FusionPreset
from citycover_models.catalogue.registry import find_fusion
from citycover_models.data.batches import Batch
from citycover_models.data.patch_batches import PatchBatch, PatchSource, measure_bands
from citycover_models.data.patch_marks import mark_patches
from citycover_models.data.patch_set import PatchSet
from citycover_models.data.patches import GROUPS, SIDES, Patch, hot_labels
from citycover_models.data.shards import PatchReader, Shards, write_shards
from citycover_models.imagery.sentinel2 import BandStatistics
from citycover_models.methods.scenes import Reference
from citycover_models.nets.band_fusion import SceneFusion, label_correlation
from citycover_models.training.checkpoint import identity_of
from citycover_models.training.material import Conclusion, Material
from citycover_models.training.patch_judging import compare_with_references, look_at_scenes
from citycover_models.training.processes import Processes
from citycover_models.training.recipe import Recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.setup import check_method
from citycover_models.training.trainee import Trainee

logger = logging.getLogger(__name__)


class PatchMaterial:
    """Patches of scenes, as the loop sees them.

    Args:
        request: whose patches are learned from.
        patches: those.
        processes: that learn from them; the first looks at their files, and decodes them where shards are
            asked for.
        stop: ends that.

    Raises:
        ConfigError: recipe and patches do not fit, or a patch cannot be used.
        StoppedError: `stop` was set.
    """

    class_weights: None = None

    def __init__(
        self, request: TrainRequest, patches: PatchSet, processes: Processes, stop: threading.Event
    ) -> None:
        self._request, self._recipe, self._set = request, request.recipe, patches
        self._dense = isinstance(self._recipe.method, Reference)
        self.criterion = "validation_miou" if self._dense else "validation_map"
        self.title = "mIoU with reference maps" if self._dense else "mean average precision, held out"
        self.preset: FusionPreset = find_fusion(self._recipe.network)
        _check(request, patches, self._dense)
        self._files, self._shards = processes.first(lambda: _look_at(patches, self._dense, stop))

    def _source(self, patches: tuple[Patch, ...]) -> PatchSource:
        reader = PatchReader(patches, self._shards)
        return PatchSource(patches, self._set.legend, reader, self._dense, self._request.seed)

    @cached_property
    def statistics(self) -> BandStatistics:
        """Of the training patches' bands."""
        return measure_bands(self._source(self._set.train))

    @cached_property
    def labels(self) -> NDArray[np.bool_]:
        """(patch, class) of the training patches."""
        return hot_labels(self._set.train, len(self._set.legend.ids))

    @cached_property
    def correlation(self) -> torch.Tensor:
        """(class, class) which of their labels meet."""
        return label_correlation(torch.from_numpy(self.labels))

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return _steps_per_epoch(self._set, self._recipe)

    @property
    def identity(self) -> list[object]:
        """Patches with their labels and files, and the legend."""
        patches = [(p.name, p.labels, p.split, p.region) for p in (*self._set.train, *self._set.validation)]
        return [patches, self._files, self._set.legend.ids, self._set.version]

    def describe(self) -> dict[str, Any]:
        """How many patches there are, and of which labels."""
        return describe_patches(self._set, self._recipe)

    def record(self) -> dict[str, Any]:
        """Where the patches come from, and statistics."""
        return {
            "bigearthnet": self._set.version,
            "regions": list(self._set.regions) or "all",
            "test_regions": list(self._set.test_regions) or "all",
            "band_mean": self.statistics.means,
            "band_std": self.statistics.stds,
            "correlation": self.correlation.tolist(),
        }

    def warn(self) -> None:
        """Say what the patches lack: labels, or anything to stop early by."""
        if self._recipe.patience and not self._set.validation:
            logger.warning("no patch is in the validation split: training will not stop early")
        counts = zip(self._set.legend.names, self.labels.sum(0), strict=True)
        if empty := [name for name, count in counts if count == 0]:
            logger.warning("no training patch has %s: the network cannot learn them", ", ".join(empty))

    def network(self) -> nn.Module:
        """Built for these labels, normalised by these bands."""
        network = self.preset.build_for(
            len(self._set.legend.ids),
            statistics=self.statistics,
            correlation=self.correlation,
        )
        check_method(network, self.preset.name, self._recipe)
        if self._recipe.learn == "head":
            if not isinstance(network, SceneFusion):
                raise ConfigError(f"{self.preset.name} has no head that learns alone; give --set learn=all")
            network.freeze()
        return network

    def measured(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """Statistics and correlations; where the head alone learns, only what belongs to the head."""
        own = ("head.correlation",) if self._recipe.learn == "head" else ("groups.", "head.correlation")
        return {k: v.clone() for k, v in network.named_buffers() if k.startswith(own)}

    def batches(self, first: int, last: int, rank: int, world: int) -> Iterator[Batch]:
        """Patches of each step: every one of them once an epoch, in an order of its own."""
        batch, workers = self._recipe.batch, self._request.workers
        per_epoch = self.steps_per_epoch * batch
        source = self._source(self._set.train)
        return source.steps(per_epoch, batch, first, last, workers=workers, rank=rank, world=world)

    def vary(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Symmetries and light."""
        assert isinstance(batch, PatchBatch), "these are the batches of this material"
        return batch.varied(self._recipe.augment, self.statistics, generator)

    def judge(self, trainee: Trainee, figure: Path) -> dict[str, float]:
        """Figures on the validation split."""
        if not self._set.validation:
            return {}
        held_out = self._source(self._set.validation)
        if self._dense:
            confusion = compare_with_references(trainee, held_out, self._recipe.batch, figure)
            return {"validation_miou": confusion.miou, "validation_accuracy": confusion.overall_accuracy}
        truth = hot_labels(self._set.validation, len(self._set.legend.ids))
        found = score_labels(look_at_scenes(trainee, held_out, self._recipe.batch, figure), truth)
        return {
            "validation_map": found.macro_ap,
            "validation_micro_ap": found.micro_ap,
            "validation_micro_f2": found.micro.f2,
            "validation_macro_f2": found.macro.f2,
        }

    def conclude(self, trainee: Trainee, steps: int) -> Conclusion:
        """Figures on what is tested on, and the card."""
        return Conclusion(self._card(steps), test=self._test(trainee) if self._set.test else {})

    def _test(self, trainee: Trainee) -> dict[str, Any]:
        source = self._source(self._set.test)
        if self._dense:
            confusion = compare_with_references(trainee, source, self._recipe.batch)
            return {"patches": len(self._set.test), "miou": confusion.miou,
                    "accuracy": confusion.overall_accuracy}  # fmt: skip
        truth = hot_labels(self._set.test, len(self._set.legend.ids))
        found = score_labels(look_at_scenes(trainee, source, self._recipe.batch), truth)
        classes = zip(self._set.legend.names, found.class_f2, found.average_precision, strict=True)
        return {
            "patches": len(self._set.test),
            "label_distance": label_distance(self.labels, truth),
            **found.facts(),
            "classes": {
                name: {"f2": f2, "average_precision": ap} for name, f2, ap in classes if ap is not None
            },
        }

    def _card(self, steps: int) -> ModelCard:
        """The preset's card with the labels, statistics and history of this training."""
        recipe, template = self._recipe, self.preset.card()
        regions = ", ".join(self._set.regions) or "all regions"
        history = (
            f"recipe {recipe.name} ({recipe.network}, {recipe.method.name}), {steps} steps of {recipe.batch} "
            f"of {len(self._set.train)} patches of BigEarthNet {self._set.version}, {regions}, seed "
            f"{self._request.seed}, citycover {__version__}"
        )
        groups = (
            BandGroup(**(dict(group) | {"fill": self.statistics.of(bands)[0]}))
            for group, bands in zip(template.groups, GROUPS, strict=False)  # late fusion may lack the last
        )
        fields = dict(template) | {
            "name": recipe.name,
            "description": recipe.title or template.description,
            "groups": tuple(groups),
            "channels": self._set.legend.ids,
            "legend": self._set.legend,
            "training": history,
        }
        return ModelCard(**fields)


def _steps_per_epoch(patches: PatchSet, recipe: Recipe) -> int:
    """Every patch once, about; or as many as the recipe says."""
    return max(1, round((recipe.chips_per_epoch or len(patches.train)) / recipe.batch))


def describe_patches(patches: PatchSet, recipe: Recipe) -> dict[str, Any]:
    """How many patches there are in which role, and the labels of those that are learned from."""
    counts = hot_labels(patches.train, len(patches.legend.ids)).sum(0).tolist()
    return {
        "patches": len(patches.train),
        "validation_patches": len(patches.validation),
        "test_patches": len(patches.test),
        "chip": SIDES[0],
        "chips_per_epoch": _steps_per_epoch(patches, recipe) * recipe.batch,
        "validation_chips": len(patches.validation),
        "labels": {name: n for name, n in zip(patches.legend.names, counts, strict=True) if n},
    }


def _look_at(patches: PatchSet, dense: bool, stop: threading.Event) -> tuple[str, Shards | None]:
    """A hash that changes with any file that is learned from, and the patches decoded, if they shall be."""
    learned = (*patches.train, *patches.validation)
    every = learned if patches.shards is None else (*learned, *patches.test)
    marks = mark_patches(every, references=dense)
    files = identity_of([(marks.bands[p.name], marks.codes.get(p.name)) for p in learned])
    shards = None if patches.shards is None else write_shards(every, patches.shards, marks, stop)
    return files, shards


def _check(request: TrainRequest, patches: PatchSet, dense: bool) -> None:
    """Refuse what cannot be learned, before a pixel is read."""
    recipe = request.recipe
    if recipe.batch < 2:
        raise ConfigError("batches of one patch cannot be normalised; give --set batch=2 or more")
    if recipe.chip != SIDES[0]:
        raise ConfigError(f"patches have {SIDES[0]} px, the recipe {recipe.chip}; give --set chip={SIDES[0]}")
    if dense and not patches.has_references:
        raise ConfigError(
            "method 'reference' learns from the reference maps of BigEarthNet v2, which this folder does not "
            "have; add Reference_Maps, or learn labels by --set method.name=bce"
        )
    if recipe.learn == "head" and request.weights is None:
        raise ConfigError(
            "learn = head keeps the rest of the network as its weights are; give --weights of a network that "
            "was trained on another region"
        )


_: type[Material] = PatchMaterial
