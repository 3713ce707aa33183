"""What a picture or a page shows of a product: small arrays that lie over each other, and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.product.record import RunRecord


@dataclass(frozen=True, slots=True)
class Shown:
    """A product, small. All arrays show the same ground and have one shape."""

    title: str
    record: RunRecord
    image: NDArray[np.uint8]
    """(y, x, 3) red, green, blue, stretched to be seen."""
    valid: NDArray[np.bool_]
    """(y, x); where the image was observed."""
    classes: NDArray[np.uint8]
    """(y, x) legend ids and the product's nodata."""
    confidence: NDArray[np.uint8]
    """(y, x) 1/255 of the probability of the best class; 0: nodata."""
    metres: float
    """Ground metres per pixel of these arrays."""
    cropped: bool
    """Whether they show the middle of the scene only."""
    counts: Mapping[int, int]
    """Pixels of each class in the full map, by id."""
    pixel_area: float
    """Mean square metres of a pixel of the map."""
    shape: tuple[int, int]
    """(y, x) pixels of the map."""
    crs: str
    """Code or name of its CRS."""
