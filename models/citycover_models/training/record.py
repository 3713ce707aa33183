"""What a training writes about itself before it begins."""

from __future__ import annotations

import json
import platform

import torch

from citycover.files.atomic import write_atomic
from citycover.version import __version__
from citycover_models.training.material import Material
from citycover_models.training.request import TrainRequest


def write_plan(request: TrainRequest, material: Material) -> None:
    """`plan.json`: what is learned from, and how."""
    content = {
        "citycover": __version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "recipe": request.recipe.model_dump(mode="json"),
        "legend": request.training_set.legend.name,
        "classes": list(request.training_set.legend.names),
        **material.record(),
        "samples": material.describe(),
    }
    write_atomic(request.out / "plan.json", json.dumps(content, indent=1))
