"""What a sharpening is asked for, how it is followed, and what it leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from citycover.errors import ConfigError
from citycover.evidence.request import LabelRequest
from citycover.job.request import EngineOptions, Imagery, ProductOptions, Where
from citycover.job.watch import Watch
from citycover.product.product import Product
from citycover_models.sharpen.report import Report
from citycover_models.training.request import TrainWatch

RECIPE = "l2hnet-light"
"""How a sharpening trains unless it is told otherwise: minutes on two cores."""


@dataclass(frozen=True, slots=True)
class SharpenRequest:
    """A scene, coarse labels of its place, and the folder of the finer map."""

    imagery: Imagery
    labels: LabelRequest
    """Teach the network, and are evidence beside it. Products by name know their legend."""
    out: Path
    to: str | None = None
    """Legend of the map; None: that of the labels."""
    recipe: str = RECIPE
    method: str = "auto"
    """Name of a training method, `recipe` for the recipe's own, or `auto`: plain cross-entropy."""
    changes: tuple[str, ...] = ()
    """`key=value` overrides of the recipe."""
    seed: int = 0
    where: Where = field(default_factory=Where)
    """The part that is mapped; all of the image is learned from."""
    engine: EngineOptions = field(default_factory=EngineOptions)
    product: ProductOptions = field(default_factory=ProductOptions)

    def __post_init__(self) -> None:
        """Raise ConfigError where nothing can be learned from it."""
        if ":" in (self.labels.legend or ""):
            raise ConfigError(
                f"--labels-legend {self.labels.legend} names a table; training knows one table a legend; "
                "give the legend alone"
            )


@dataclass(frozen=True, slots=True)
class SharpenWatch:
    """How a sharpening is followed and stopped: as a training, then as a map."""

    said: Callable[[str], None] = lambda _line: None
    """Called with a line where something was decided."""
    train: TrainWatch = field(default_factory=TrainWatch)
    map: Watch = field(default_factory=Watch)
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it, and what is going on ends with StoppedError; whoever makes a watch gives it to all three."""


@dataclass(frozen=True, slots=True)
class Sharpened:
    """What a sharpening left."""

    product: Product
    model: Path
    report: Report
    picture: Path
