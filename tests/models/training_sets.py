"""A small practice city and its training set, for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from citycover.synth.write import write_city
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.training.recipe import Recipe, parse_recipe


def make_city(folder: Path, size: int = 192, seed: int = 3) -> Path:
    write_city(folder, size, seed)
    return folder


def training_set_of(city: Path, **changes: Any) -> TrainingSet:
    item = ImageAndLabels(str(city / "image.tif"), (str(city / "labels_10m.tif"),))
    return prepare_training_set([item], ["city"], None, **changes)


def small_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "small",
        "network": "l2hnet-tiny",
        "method": {"name": "ce"},
        "chip": 32,
        "batch": 2,
        "epochs": 2,
        "chips_per_epoch": 6,
        "balance": "classes",
        "validation": 0.2,
        "augment": {"symmetries": True, "brightness": 0.1, "contrast": 0.1, "noise": 0.01},
        "optimiser": {"name": "adamw", "lr": 0.003},
        "schedule": {"name": "cosine"},
        "ema": 0.9,
    }
    return parse_recipe(fields | changes)
