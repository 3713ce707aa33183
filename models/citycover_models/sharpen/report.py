"""`sharpen.json`: how far the labels were trusted, which method was taken and why, and what it brought."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citycover.files.atomic import write_atomic
from citycover.version import __version__
from citycover_models.sharpen.judge import OUTPUTS, Judgement


@dataclass(frozen=True, slots=True)
class Report:
    """What a sharpening found."""

    classes: tuple[str, ...]
    """Names, in the order of the judgement."""
    recipe: str
    method: str
    why: str
    """Why that method was taken."""
    trust: float
    """Share of the labels that was reckoned right, 0..1."""
    noise: str
    """How noisy the labels are, in words."""
    labels: Mapping[str, float]
    """Share of each class in the labels over the map."""
    mapped: Mapping[str, float]
    """Share of each class in the map."""
    judgement: Judgement | None
    """None: the image has no room for squares that are held out."""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "citycover": __version__,
            "recipe": self.recipe,
            "method": self.method,
            "why": self.why,
            "trust": self.trust,
            "noise": self.noise,
            "shares": {
                name: {"labels": self.labels.get(name, 0.0), "map": self.mapped.get(name, 0.0)}
                for name in self.classes
            },
            "held_out": None if self.judgement is None else self._judged(self.judgement),
        }

    def _judged(self, judgement: Judgement) -> dict[str, Any]:
        outputs = {
            name: {
                "miou": _number(confusion.miou),
                "accuracy": _number(confusion.overall_accuracy),
                "iou": dict(zip(self.classes, map(_number, confusion.iou.tolist()), strict=True)),
            }
            for name, confusion in judgement.confusions.items()
        }
        gains = dict(zip(self.classes, map(_number, judgement.gains().tolist()), strict=True))
        return {"cells": judgement.cells, "outputs": outputs, "gain": gains}

    @property
    def gain(self) -> float:
        """Accuracy on cells that were kept back: network and labels around, less the labels around alone."""
        if self.judgement is None:
            return math.nan
        one, both = (self.judgement.confusions[name] for name in (OUTPUTS[0], OUTPUTS[2]))
        return both.overall_accuracy - one.overall_accuracy

    def write(self, path: Path) -> None:
        """Wholly, or not at all."""
        write_atomic(path, json.dumps(self.facts(), indent=1))


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(value, 4)
