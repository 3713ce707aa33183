"""From a request to what is learned from: every mistake in image and labels is found before a step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from citycover.classes.legend import Legend, read_legend
from citycover.files.identity import FileMark
from citycover.job.labels import look_at_labels
from citycover.model.card import ModelCard
from citycover.version import __version__
from citycover_models.catalogue.registry import find_aerial
from citycover_models.data.describe import describe_image
from citycover_models.data.named import legends_by_name
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN
from citycover_models.sharpen.method import recipe_of
from citycover_models.sharpen.request import SharpenRequest
from citycover_models.training.recipe import Recipe
from citycover_models.training.setup import build_network

_MARKED = 16 << 20
"""Bytes of an image that are compared to know it again."""


@dataclass(frozen=True, slots=True)
class Understood:
    """A request that was understood: labels were counted, nothing was learned."""

    training_set: TrainingSet
    recipe: Recipe
    """Of the training."""
    identity: Mapping[str, str]
    """Named parts that decide the weights; one of another value is another sharpening."""


def understand(request: SharpenRequest) -> Understood:
    """Look at image and labels.

    Raises:
        CitycoverError: they cannot be learned from, or labels cannot be evidence.
    """
    recipe = recipe_of(request.recipe, request.method, request.changes)
    # Bands and classes do not matter here: whether the method finds in the network what it needs.
    build_network(find_aerial(recipe.network), recipe, 2, CHESAPEAKE_RGBN)
    image, labels = request.imagery, request.labels
    named = tuple(str(file) for file in labels.files)
    written = labels.legend or legends_by_name(named, "--labels-legend")[0]
    legend = read_legend(request.to or written)
    scene = describe_image(image.files, None, image)
    look_at_labels(labels, _draft(recipe, legend, written), scene.grid, image.trust)
    training_set = prepare_training_set(
        [ImageAndLabels(image.files[0], named, further=image.files[1:])],
        [labels.legend] if labels.legend else (),
        request.to,
        seen=image,
    )
    return Understood(training_set, recipe, _identity(request, recipe, training_set))


def _draft(recipe: Recipe, legend: Legend, learned: str) -> ModelCard:
    """The card that the network will have, as far as labels ask for it."""
    return ModelCard(
        name=recipe.network,
        groups=(CHESAPEAKE_RGBN.group,),
        window={"size": 64},
        trim=0,
        feather=0,
        legend=legend,
        trained_prior=(1 / len(legend.ids),) * len(legend.ids),
        label_legend=read_legend(learned).name,
    )


def _identity(request: SharpenRequest, recipe: Recipe, known: TrainingSet) -> dict[str, str]:
    (pair,) = known.pairs
    return {
        "recipe": _hash([recipe.model_dump(mode="json"), request.method]),
        "image": _hash(
            [
                _contents(path for path, _, _ in pair.scene.fingerprints),
                replace(pair.scene, fingerprints=()).identity,
            ]
        ),
        "labels": _hash([_contents(s.path for s in pair.labels), [sheet.legend for sheet in pair.labels]]),
        "legend": _hash(known.legend.model_dump(mode="json")),
        "seed": str(request.seed),
        "citycover": __version__,
    }


def _contents(paths: Iterable[str]) -> list[list[Any]]:
    """What files hold: content, not date."""
    marks = [FileMark.of(path, _MARKED) for path in paths]
    return [[m.path, None if m.stamp is None else m.stamp.size, m.digest] for m in marks]


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
