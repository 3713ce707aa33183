"""A small picture of a scene, for previews: overviews where files have them, a central part where not."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window as RasterioWindow

from citycover.geometry.window import Window
from citycover.read.small import SHOWN_BYTES, decoded_bytes
from citycover.scene.scene import BandSource, Scene

_CENTRE = 4096
"""Side of the part that is shown of files that are larger."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decimated image."""

    values: NDArray[np.float32]
    """(y, x, 3) digital numbers: red, green, blue where the scene names them."""
    valid: NDArray[np.bool_]
    """(y, x)."""
    part: Window
    """Pixels of the scene that are shown."""


def visible_bands(bands: tuple[BandSource, ...]) -> list[BandSource]:
    """Three bands to show: by name, else the first three, a single one thrice."""
    by_name = {band.name: band for band in bands}
    for names in (("red", "green", "blue"), ("B04", "B03", "B02")):
        if all(name in by_name for name in names):
            return [by_name[name] for name in names]
    return [bands[min(k, len(bands) - 1)] for k in range(3)]


def read_picture(scene: Scene, part: Window, longest: int = 1000) -> Picture:
    """Read a decimated image of a part of the finest band group.

    What cannot be read is shown as invalid: a picture never fails a run.
    """
    bands = visible_bands(scene.groups[0].bands)
    shown = part if _cheap(bands, part, longest) else _centre(part)
    scale = max(1.0, max(shown.height, shown.width) / longest)
    shape = (max(1, round(shown.height / scale)), max(1, round(shown.width / scale)))
    values = np.zeros((*shape, 3), np.float32)
    valid = np.ones(shape, np.bool_)
    for k, band in enumerate(bands):
        plane, seen = _read_band(scene, band, shown, shape)
        values[..., k] = plane
        valid &= seen
    return Picture(values, valid, shown)


def _cheap(bands: list[BandSource], part: Window, longest: int) -> bool:
    factor = max(1.0, max(part.height, part.width) / longest)
    cost = 0
    for band in dict.fromkeys(bands):
        with rasterio.open(band.path) as dataset:
            cost += decoded_bytes(dataset, 1, part.pixels, factor)
    return cost <= SHOWN_BYTES


def _centre(part: Window) -> Window:
    row = part.row + max(0, part.height - _CENTRE) // 2
    col = part.col + max(0, part.width - _CENTRE) // 2
    return Window(row, col, min(_CENTRE, part.height), min(_CENTRE, part.width))


def _read_band(
    scene: Scene, band: BandSource, shown: Window, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    blank = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    with contextlib.suppress(rasterio.errors.RasterioError), rasterio.open(band.path) as dataset:
        # A resampled scene has another grid than its files: show the same share of them.
        sy, sx = dataset.height / scene.shape[0], dataset.width / scene.shape[1]
        window = RasterioWindow(shown.col * sx, shown.row * sy, shown.width * sx, shown.height * sy)
        plane = dataset.read(
            band.index, window=window, out_shape=shape, resampling=Resampling.nearest, out_dtype="float32"
        )
        seen = np.isfinite(plane)
        if band.validity == "nodata" and band.nodata is not None and np.isfinite(band.nodata):
            seen &= plane != np.float32(band.nodata)
        elif band.validity == "alpha":
            for index, colour in zip(dataset.indexes, dataset.colorinterp, strict=True):
                if colour is ColorInterp.alpha:
                    seen &= dataset.read(index, window=window, out_shape=shape) > 0
        elif band.validity == "mask":
            mask = dataset.read_masks(band.index, window=window, out_shape=shape)
            seen &= mask > 0
        return np.nan_to_num(plane), seen
    return blank
