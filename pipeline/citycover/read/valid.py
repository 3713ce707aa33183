"""Which pixels of a file were observed: nodata, masks, alpha and NaN, as GDAL understands them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from citycover.scene.scene import BandSource

ValidityReader = Callable[[RasterioWindow], NDArray[np.bool_]]


def mask_readers(dataset: Any, bands: Sequence[BandSource]) -> list[ValidityReader]:
    """What to ask an open file for the validity of bands, beside numbers and opacity."""
    readers: list[ValidityReader] = []
    if any(band.validity == "mask" for band in bands):
        masked = [band for band in bands if band.validity == "mask"]
        shared = all("per_dataset" in {f.name for f in dataset.mask_flag_enums[b.index - 1]} for b in masked)
        readers += [partial(_mask, dataset, band.index) for band in (masked[:1] if shared else masked)]
    return readers


def opacities(dataset: Any, bands: Sequence[BandSource]) -> list[int]:
    """Numbers of the bands that say where others are transparent; the least opacity is imagery."""
    if all(band.validity != "alpha" for band in bands):
        return []
    return [i for i, c in zip(dataset.indexes, dataset.colorinterp, strict=True) if c.name == "alpha"]


def _mask(dataset: Any, index: int, where: RasterioWindow) -> NDArray[np.bool_]:
    return cast("NDArray[np.bool_]", dataset.read_masks(index, window=where) > 0)


def differs(plane: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """True where pixels are not the nodata number; floats within GDAL's tolerance of it are.

    Tags are decimal text or float64, pixels often the nearest float32 or one a rounding away: GDAL calls two
    floats equal where they differ by less than two epsilons of their sum (`ARE_REAL_EQUAL`). A pixel that is
    NaN is never different from nodata.
    """
    if plane.dtype.kind in "iu":
        return cast("NDArray[np.bool_]", plane != int(nodata))
    if math.isinf(nodata):
        return cast("NDArray[np.bool_]", np.isfinite(plane))
    limits = np.finfo(plane.dtype)
    with np.errstate(over="ignore"):
        number = float(plane.dtype.type(nodata))
        slack = abs(number) * 4 * float(limits.eps)
        low, high = plane.dtype.type(number - slack), plane.dtype.type(number + slack)
    return cast("NDArray[np.bool_]", (plane < low) | (plane > high))
