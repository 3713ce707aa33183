"""What a training is asked for, how it is followed, and what it leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from citycover.errors import ConfigError
from citycover.machine.cores import most_processes
from citycover_models.data.patch_set import PatchSet
from citycover_models.data.prepare import TrainingSet
from citycover_models.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to train, and how."""

    training_set: TrainingSet | PatchSet
    recipe: Recipe
    out: Path
    seed: int = 0
    device: str = "auto"
    weights: Path | None = None
    """Weights to begin with (fine-tuning); None: random ones."""
    workers: int = 1
    """Processes that decode chips; 0: none beside the one that learns."""
    resume: bool = False
    overwrite: bool = False
    pt2: bool = False
    """Write `model.pt2` beside `model.pt`: an ExportedProgram, of the same classes and statistics."""
    measure: bool = True
    """Measure trim and feather of the trained network, and whether bf16 is safe."""

    def __post_init__(self) -> None:
        """Raise ConfigError where this machine cannot bear so many processes."""
        if self.workers > (most := most_processes()):
            raise ConfigError(
                f"got --workers {self.workers}; this machine takes 0 to {most}; give one a core"
            )


@dataclass(frozen=True, slots=True)
class TrainWatch:
    """How a training talks to whoever started it."""

    planned: Callable[[dict[str, Any], int], None] = lambda _plan, _done: None
    """Called before the first step, with the plan and the steps done by an earlier run."""
    advanced: Callable[[int, int, str], None] = lambda _step, _steps, _note: None
    """Called after each step: steps done, all steps, loss and speed as text."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it, and the run keeps a checkpoint after the step in hand and ends with StoppedError."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left."""

    folder: Path
    model: Path
    steps: int
    seconds: float
    """Of this run, without those before a resume."""
    before: bool
    """An earlier run had finished it: nothing was left to do."""
    validation: dict[str, float]
    """Criterion of the weights that were kept, against coarse labels that were held out; empty: none were."""
    labels: dict[str, Any] = field(default_factory=dict)
    """What was found of its coarse labels (`Knowledge.facts`); empty: it had none."""
    test: dict[str, Any] = field(default_factory=dict)
    """Figures on a part that was set aside for this; empty: there is none."""
