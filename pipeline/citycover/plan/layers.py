"""What a map says of each pixel: its layers, a row of one table each.

Everything between the sweep and the product carries arrays by the name of their layer and knows nothing of
what stands in them; a new layer is a new row here, and what it says of ranked classes stands in
`engine/ranking.py`. torch is not imported: it is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from citycover.classes.legend import Legend
from citycover.errors import ConfigError

Tensor = Any
"""Of torch, which planning does not know."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster of a map, uint8: (y, x), or (band, y, x) with a band for each class of the network."""

    name: str
    """Of its array in the working store and in xarray, and of the option that asks for it."""
    file: str
    """Of its raster in the product."""
    title: str
    of: Callable[[Any], Tensor]
    """`engine.ranking.Ranking` -> uint8 (y, x), or (band, y, x)."""
    nodata: int | None = None
    """Number of pixels without a value; None: the nodata of the legend."""
    scale: float = 1.0
    """What one step of the numbers stands for."""
    overviews: Literal["mode", "average"] = "average"
    """How a pixel of an overview comes from those under it."""
    per_class: bool = False
    """A band for each class of the network, in its order."""

    @property
    def style(self) -> str:
        """Of the style in which QGIS shows its raster."""
        return self.file.replace(".tif", ".qml")

    @property
    def categorical(self) -> bool:
        """Whether the numbers are ids of the legend."""
        return self.nodata is None

    def bands(self, channels: int) -> int:
        """Bands for a network of so many channels; 0: the array is (y, x)."""
        return channels if self.per_class else 0

    def shape(self, channels: int, pixels: tuple[int, int]) -> tuple[int, ...]:
        """Shape of its array over (y, x) pixels."""
        return (channels, *pixels) if self.per_class else pixels

    def nodata_of(self, legend: Legend) -> int:
        """Number of pixels without a value, 0..255."""
        return legend.product_nodata if self.nodata is None else self.nodata


CLASSES = Layer("classes", "landcover.tif", "land cover", attrgetter("classes"), overviews="mode")

PRESENT = Layer(
    "present", "labels.tif", "classes that are there", attrgetter("present"), 255, 1, "mode", per_class=True
)
"""Of maps whose pixels may be of several classes."""

CONFIDENCE = Layer("confidence", "confidence.tif", "confidence", attrgetter("confidence"), 0, 1 / 255)

PROBABILITIES = Layer(
    "probabilities",
    "probabilities.tif",
    "probability of each class",
    attrgetter("probabilities"),
    255,
    1 / 255,
    per_class=True,
)

ENTROPY = Layer("entropy", "entropy.tif", "entropy of the classes", attrgetter("entropy"), 255, 1 / 254)

SECOND = Layer("second", "second.tif", "second best class", attrgetter("second"), overviews="mode")

MARGIN = Layer("margin", "margin.tif", "lead over the second class", attrgetter("margin"), 255, 1 / 254)

DISAGREEMENT = Layer(
    "disagreement",
    "disagreement.tif",
    "disagreement of the networks",
    attrgetter("disagreement"),
    255,
    1 / 254,
)
"""Of maps by several networks, or by one that sees windows turned: see `JointPredictor`."""

CHANGE = Layer("change", "change.tif", "trust that labels lost", attrgetter("change"), 255, 1 / 254)
"""Of maps with labels that are watched: the place has changed since; nodata where there is no label, too."""

CHANGED = 127
"""Number of it from which on a pixel counts as changed: half of the trust."""

LAYERS = (CLASSES, PRESENT, CONFIDENCE, PROBABILITIES, ENTROPY, SECOND, MARGIN, DISAGREEMENT, CHANGE)
"""Every layer that there is."""

USUAL = (CLASSES, CONFIDENCE)
"""Those of every map."""

ON_REQUEST = (PROBABILITIES, ENTROPY, SECOND, MARGIN, DISAGREEMENT)
"""Those of a map that was asked for them."""


def layers_of(
    task: Literal["classes", "labels"],
    asked: Iterable[str] = (),
    change: bool = False,
    several: bool = False,
) -> tuple[Layer, ...]:
    """Layers of a map.

    Args:
        task: of the network; `labels`: a pixel may be of several classes.
        asked: names of layers on request.
        change: whether labels are watched.
        several: whether the map is by several networks, or by one that sees windows turned.

    Raises:
        ConfigError: there is no such layer on request, or not of one network.

    >>> [layer.name for layer in layers_of("labels", ["entropy"])]
    ['classes', 'present', 'confidence', 'entropy']
    """
    asked, known = set(asked), {layer.name for layer in ON_REQUEST}
    if unknown := sorted(asked - known):
        raise ConfigError(
            f"there is no layer {', '.join(map(repr, unknown))} to ask for; a map can have "
            f"{', '.join(layer.name for layer in ON_REQUEST)}"
        )
    if DISAGREEMENT.name in asked and not several:
        raise ConfigError(
            "disagreement is of networks that are averaged, and there is one, which sees windows one way; "
            "give several models, or turn windows: --tta flips"
        )
    own = [*USUAL, *([PRESENT] if task == "labels" else []), *([CHANGE] if change else [])]
    return layers_named({*(layer.name for layer in own), *asked})


def layers_named(names: Iterable[str]) -> tuple[Layer, ...]:
    """Layers of these names, in the order of the table.

    >>> [layer.file for layer in layers_named({"confidence", "classes"})]
    ['landcover.tif', 'confidence.tif']
    """
    wanted = set(names)
    if unknown := wanted - {layer.name for layer in LAYERS}:
        raise ValueError(f"there are no layers {sorted(unknown)}")
    return tuple(layer for layer in LAYERS if layer.name in wanted)


def bytes_per_pixel(layers: Iterable[Layer], channels: int) -> int:
    """Bytes of one pixel of output in all layers, before compression."""
    return sum(layer.bands(channels) or 1 for layer in layers)
