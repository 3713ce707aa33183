"""What a map says of each pixel: its layers, a row of one table each.

Everything between the sweep and the product carries arrays by the name of their layer and knows nothing of
what stands in them; a new layer is a new row here. torch is not imported: it is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from citycover.classes.legend import Legend

Tensor = Any
"""Of torch, which planning does not know."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster of a map, uint8: (y, x), or (band, y, x) with a band for each class of the network.

    It is made of one of two things: of the blended probabilities, or of the best class, which overwrites them
    and is therefore looked for last, and only where a layer asks for it.
    """

    name: str
    """Of its array in the working store and in xarray."""
    file: str
    """Of its raster in the product."""
    title: str
    of_best: Callable[[Any], Tensor] | None = None
    """`engine.blend.Best` -> uint8 (y, x)."""
    of_probabilities: Callable[[Tensor], Tensor] | None = None
    """(class, y, x) float32 from 0 to 1, not to be written to -> uint8 (y, x) or (band, y, x)."""
    nodata: int | None = 0
    """Number of pixels without a value, which `of_*` never gives; None: the nodata of the legend."""
    scale: float = 1.0
    """What one step of the numbers stands for."""
    overviews: Literal["mode", "average"] = "average"
    """How a pixel of an overview comes from those under it; mode: the numbers are classes of the legend."""
    per_class: bool = False
    """A band for each class of the network, in its order."""

    def __post_init__(self) -> None:
        if (self.of_best is None) == (self.of_probabilities is None):
            raise ValueError(f"layer {self.name!r} must be made of the best class or of the probabilities")

    @property
    def categorical(self) -> bool:
        """Whether the numbers are ids of the legend."""
        return self.overviews == "mode"

    def bands(self, channels: int) -> int:
        """Bands for a network of so many channels; 0: the array is (y, x)."""
        return channels if self.per_class else 0

    def shape(self, channels: int, pixels: tuple[int, int]) -> tuple[int, ...]:
        """Shape of its array over (y, x) pixels."""
        return (channels, *pixels) if self.per_class else pixels

    def nodata_of(self, legend: Legend) -> int:
        """Number of pixels without a value, 0..255."""
        return legend.product_nodata if self.nodata is None else self.nodata


CLASSES = Layer(
    "classes", "landcover.tif", "land cover", of_best=attrgetter("classes"), nodata=None, overviews="mode"
)

CONFIDENCE = Layer(
    "confidence", "confidence.tif", "confidence", of_best=attrgetter("confidence"), scale=1 / 255
)

LAYERS = (CLASSES, CONFIDENCE)
"""Every layer that there is."""

USUAL = (CLASSES, CONFIDENCE)
"""Those of a map that was not asked for others."""


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
