"""The training of a sharpening: made, gone on with, or found finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from citycover_models.data.sampling import SamplePlan
from citycover_models.sharpen.folder import TRAINING
from citycover_models.sharpen.method import reason_for
from citycover_models.sharpen.request import SharpenRequest, SharpenWatch
from citycover_models.sharpen.understand import Understood
from citycover_models.training.coarse import plan_of
from citycover_models.training.folder import RESULT
from citycover_models.training.recipe import Recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned."""

    model: Path
    plan: SamplePlan
    """What was learned from, and what was held out."""
    recipe: Recipe
    why: str
    """Why it has its method."""


def learn(request: SharpenRequest, known: Understood, watch: SharpenWatch) -> Learned:
    """Train on the image and its labels, or find that done.

    Raises:
        TrainingError: the loss is no number any more.
        StoppedError: the watch was set; a checkpoint is kept.
    """
    why = reason_for(known.recipe, request.method)
    watch.said(f"method {known.recipe.method.name}: {why}")
    training = _train_request(request, known)
    if not (training.out / RESULT).is_file():  # the folder was claimed for this very training
        train(training, watch.train)
    return Learned(training.out / "model.pt", plan_of(training, known.training_set), known.recipe, why)


def _train_request(request: SharpenRequest, known: Understood) -> TrainRequest:
    return TrainRequest(
        known.training_set,
        known.recipe,
        request.out / TRAINING,
        seed=request.seed,
        device=request.engine.device,
        resume=True,
    )
