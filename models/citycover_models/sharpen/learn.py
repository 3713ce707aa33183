"""The training of a sharpening: made, gone on with, or found finished."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from citycover.evidence.noise import LabelNoise
from citycover.model.archive import read_model_file
from citycover_models.data.sampling import SamplePlan
from citycover_models.sharpen.folder import SELECTING, TRAINING
from citycover_models.sharpen.method import Choice, choose
from citycover_models.sharpen.request import SharpenRequest, SharpenWatch
from citycover_models.sharpen.understand import Understood
from citycover_models.training.coarse import plan_of
from citycover_models.training.folder import RESULT
from citycover_models.training.recipe import read_recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned."""

    model: Path
    plan: SamplePlan
    """What was learned from, and what was held out."""
    choice: Choice


def learn(request: SharpenRequest, known: Understood, watch: SharpenWatch) -> Learned:
    """Train with plain cross-entropy, and then by a selecting method if that first look asks for it.

    Raises:
        TrainingError: the loss is no number any more.
        StoppedError: the watch was set; a checkpoint is kept.
    """
    first = _train_request(request, known)
    _train(first, watch)
    choice = Choice(known.recipe, "asked for")
    if request.method == "auto" and not any(change.startswith("method.name=") for change in request.changes):
        own = read_recipe(request.recipe, request.changes)
        choice = choose(known.recipe, own, _noise_of(first.out / "model.pt"))
    watch.said(f"method {choice.method}: {choice.why}")
    last = first
    if choice.again:
        weights = first.out / "weights.safetensors"
        last = replace(first, recipe=choice.recipe, out=request.out / SELECTING, weights=weights)
        _train(last, watch)
    return Learned(last.out / "model.pt", plan_of(last, known.training_set), choice)


def _train_request(request: SharpenRequest, known: Understood) -> TrainRequest:
    return TrainRequest(
        known.training_set,
        known.recipe,
        request.out / TRAINING,
        seed=request.seed,
        device=request.engine.device,
        resume=True,
    )


def _train(request: TrainRequest, watch: SharpenWatch) -> None:
    """Unless it is finished: the folder was claimed for this very training."""
    if not (request.out / RESULT).is_file():
        train(request, watch.train)


def _noise_of(model: Path) -> LabelNoise | None:
    """What a training measured of its labels."""
    card = read_model_file(model).card
    return None if card.label_noise is None else LabelNoise(card.label_noise, card.label_cells)
