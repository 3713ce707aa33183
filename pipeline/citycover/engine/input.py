"""What a sweep is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.machine.stages import Stages
from citycover.model.card import ModelCard
from citycover.model.predictor import Predictor
from citycover.plan.plan import Plan
from citycover.read.reader import Reader

AreaMask = Callable[[Window], NDArray[np.bool_]]
"""Input pixels of the output's area -> (y, x) True inside the area of interest."""


@dataclass(frozen=True, slots=True)
class SweepInput:
    """What a sweep reads and asks."""

    plan: Plan
    predictor: Predictor
    open_readers: Callable[[], Sequence[Reader]]
    """Opens one reader a band group; called in the thread that reads."""
    area: AreaMask | None = None
    stages: Stages = field(default_factory=Stages)
    stop: threading.Event = field(default_factory=threading.Event)
    on_windows: Callable[[int, int], None] = lambda _run, _skipped: None
    """Called with the number of windows run and skipped after each row."""

    @property
    def card(self) -> ModelCard:
        """Card of the network."""
        return self.predictor.card
