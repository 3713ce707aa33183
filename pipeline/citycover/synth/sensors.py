"""The same place as other instruments see it: a Sentinel-2-like imager and a second aerial camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.synth.city import city_ground, expose, point_spread
from citycover.synth.materials import RGBN, S2_BANDS
from citycover.synth.noise import F32, gauss, hashed, key
from citycover.synth.parameters import CITY

S2_GSD = {
    "B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20,
    "B09": 60, "B11": 20, "B12": 20,
}  # fmt: skip
"""Metres per pixel of each band."""

S2_QUANTIFICATION = 10_000

S2_OFFSET = 1000
"""Digital number = reflectance * 10000 + 1000, as in processing baseline 04.00 and later."""

_S2_NOISE = 0.0008


def sentinel2_window(seed: int, window: Window) -> dict[str, NDArray[np.uint16]]:
    """Digital numbers of the twelve bands.

    Args:
        seed: of the city.
        window: in metres; begins and ends on multiples of 60.

    Returns:
        For each band (y, x) at its own resolution.
    """
    ground = city_ground(seed, window)
    out = {}
    for band, name in enumerate(S2_BANDS):
        gsd = S2_GSD[name]
        plane = _mean(ground.radiance(band), gsd)
        rows = np.arange(plane.shape[0], dtype=np.int32)[:, None] + window.row // gsd
        cols = np.arange(plane.shape[1], dtype=np.int32)[None, :] + window.col // gsd
        plane += np.float32(_S2_NOISE) * gauss(hashed(key(seed, f"noise-{name}"), rows, cols))
        numbers = np.rint(np.clip(plane, 0, 1.5) * S2_QUANTIFICATION) + S2_OFFSET
        out[name] = numbers.astype(np.uint16)
    return out


def _mean(plane: F32, size: int) -> F32:
    rows, cols = plane.shape[0] // size, plane.shape[1] // size
    mean: F32 = plane.reshape(rows, size, cols, size).mean(axis=(1, 3), dtype=np.float32)
    return mean


def second_window(seed: int, window: Window) -> NDArray[np.uint8]:
    """(4, y, x) digital numbers of the second camera.

    Args:
        seed: of the city.
        window: in its own pixels of 1.25 m; begins and ends on multiples of 4, which are 5 m.
    """
    sensor = CITY.second_sensor
    metres = Window(*(v // 4 * 5 for v in (window.row, window.col, window.height, window.width)))
    ground = city_ground(seed, metres.grow(5))  # four more pixels on each side, of which the blur needs one
    planes = []
    for band in RGBN:
        plane = _five_to_four(_five_to_four(ground.radiance(band)).T).T
        planes.append(point_spread(plane[3:-3, 3:-3], sensor.blur))
    return expose(seed, window, planes, sensor, "second")


def _five_to_four(plane: F32) -> F32:
    """Average rows of 1 m into rows of 1.25 m."""
    a, b, c, d, e = (plane[i::5] for i in range(5))
    out = np.empty((len(a) * 4, plane.shape[1]), np.float32)
    out[0::4] = a * np.float32(0.8) + b * np.float32(0.2)
    out[1::4] = b * np.float32(0.6) + c * np.float32(0.4)
    out[2::4] = c * np.float32(0.4) + d * np.float32(0.6)
    out[3::4] = d * np.float32(0.2) + e * np.float32(0.8)
    return out
