"""What a training writes about itself: the card of its model, and the plan of its samples."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import torch
from torch import nn

from citycover.files.atomic import write_atomic
from citycover.model.card import BandGroup, ModelCard
from citycover.version import __version__
from citycover_models.catalogue.preset import Preset
from citycover_models.data.sampling import SamplePlan
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.training.knowledge import Knowledge

if TYPE_CHECKING:
    from citycover_models.training.request import TrainRequest


def card_of(
    request: TrainRequest, preset: Preset, network: nn.Module, steps: int, knowledge: Knowledge
) -> ModelCard:
    """The preset's card with the bands, classes and history of this training, and what it knows of labels."""
    training_set, recipe, template = request.training_set, request.recipe, preset.card()
    mean = tuple(float(m) for m in network.normalise.mean.flatten())  # type: ignore[union-attr, operator]
    low, high = training_set.gsd
    labels = sorted({raster.legend for pair in training_set.pairs for raster in pair.labels})
    history = (
        f"recipe {recipe.name} ({recipe.network}, {recipe.method.name}), {steps} steps of {recipe.batch} "
        f"chips of {recipe.chip} px from {len(training_set.pairs)} image(s) with {', '.join(labels)} labels, "
        f"seed {request.seed}, citycover {__version__}"
    )
    fields = dict(template) | {
        "name": recipe.name,
        "description": recipe.title or template.description,
        "groups": (BandGroup(**(dict(training_set.group) | {"fill": mean})),),
        "gsd": (low / 2, high * 2),
        "native_gsd": training_set.native_gsd,
        "channels": training_set.legend.ids,
        "legend": training_set.legend,
        "training": history,
        **knowledge.fields,
    }
    return ModelCard(**fields)


def write_plan(request: TrainRequest, plan: SamplePlan, statistics: AerialStatistics) -> None:
    """`plan.json`: what is learned from, and how."""
    content = {
        "citycover": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "recipe": request.recipe.model_dump(mode="json"),
        "legend": request.training_set.legend.name,
        "classes": list(request.training_set.legend.names),
        "images": [pair.name for pair in request.training_set.pairs],
        "labels": [[raster.path for raster in pair.labels] for pair in request.training_set.pairs],
        "samples": plan.describe(),
        "band_mean": statistics.mean,
        "band_std": statistics.std,
    }
    write_atomic(request.out / "plan.json", json.dumps(content, indent=1))
