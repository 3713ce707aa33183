"""What a sweep is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from citycover.engine.transfer import Transfer
from citycover.geometry.window import Window
from citycover.machine.stages import Stages
from citycover.model.card import ModelCard
from citycover.model.ensemble import JointPredictor
from citycover.model.predictor import Predictor
from citycover.plan.layers import DISAGREEMENT, USUAL, Layer
from citycover.plan.plan import Plan
from citycover.read.reader import Reader

if TYPE_CHECKING:
    from torch import Tensor

AreaMask = Callable[[Window], NDArray[np.bool_]]
"""Input pixels of the output's area -> (y, x) True inside the area of interest."""

Evidence = Callable[["Tensor", Window], "Tensor"]
"""(class, y, x) float32 blended probabilities on the device, and the output pixels that they are of -> the
same in the light of something else. May write into what it is given. What is asked for lies inside the raster
and is final; each pixel is asked for at most once, and not at all where no window around it was run."""


@runtime_checkable
class Watching(Protocol):
    """Evidence that looks at each window alone as well. What it sees there is blended as probabilities are,
    and stands behind them as one plane more: in what it is given, and in what it gives, where -1 is nodata.
    """

    def watch(self, probabilities: Tensor, window: Window, seen: NDArray[np.bool_]) -> Tensor:
        """(y, x) 0 to 1.

        Args:
            probabilities: (class, y, x) float32 where the window votes.
            window: the pixels of output that they are of; may begin and end outside of the map.
            seen: (y, x) where the image is valid.
        """
        ...


WINDOWS = ("run", "skipped", "slots")
"""What is counted of windows: those that the network saw, those that hold nothing to map, and the slots of
batches that went through the network, empty ones included."""


@dataclass(slots=True)
class Room:
    """What was learned of the memory of a device: it outlives a sweep."""

    batch: int | None = None
    """Windows that fit into it together; None: all that were tried did."""


@dataclass(frozen=True, slots=True)
class SweepInput:
    """What a sweep reads and asks."""

    plan: Plan
    predictor: Predictor
    open_readers: Callable[[], Sequence[Reader]]
    """Opens one reader a band group, and so for each date whose probabilities are averaged, the latest first;
    called in the thread that reads."""
    area: AreaMask | None = None
    evidence: Evidence | None = None
    """Has the last word on the probabilities, before layers are made of them."""
    layers: tuple[Layer, ...] = USUAL
    """What is made."""
    stages: Stages = field(default_factory=Stages)
    stop: threading.Event = field(default_factory=threading.Event)
    room: Room = field(default_factory=Room)
    transfer: Transfer | None = None
    """To the device and back; None: what its kind is best at."""
    on_windows: Callable[[int, int, int], None] = lambda _run, _skipped, _slots: None
    """Called after each row with its numbers of `WINDOWS`."""

    @property
    def watching(self) -> Watching | None:
        """The evidence, where it looks at windows."""
        return self.evidence if isinstance(self.evidence, Watching) else None

    @property
    def telling(self) -> bool:
        """Whether the networks are to tell how far they differ."""
        return DISAGREEMENT in self.layers

    @property
    def network(self) -> Predictor:
        """What is run: it gives scores, and where `telling` the disagreement as one channel more."""
        if not self.telling:
            return self.predictor
        assert isinstance(self.predictor, JointPredictor), "one network cannot be asked, see `layers_of`"
        return self.predictor.with_disagreement()

    @property
    def card(self) -> ModelCard:
        """Card of the network."""
        return self.predictor.card
