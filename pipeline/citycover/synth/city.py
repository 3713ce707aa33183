"""The practice city, window by window: every pixel depends on the seed and its own coordinates alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.synth.light import Sun, relief, shadow, shadow_margin, sun_of
from citycover.synth.materials import COVER, RGBN, SPECTRA, TEXTURE, Mat
from citycover.synth.noise import F32, gauss, hashed, key, unit, value_noise
from citycover.synth.parameters import CITY, Sensor
from citycover.synth.surface import paint_surface
from citycover.synth.trees import plant_trees

_LEVELS = 4095

_SURFACE_TOP = 1.2
"""Radiance at which the sensor saturates is below this."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A window of the lit city before any sensor looks at it."""

    window: Window
    material: NDArray[np.uint8]
    """(y, x) `Mat`."""
    gain: F32
    """(y, x) reflectance relative to the material's spectrum."""
    tint: F32
    """(y, x) shift from blue to red, relative."""
    lit: F32
    """(y, x) share of the direct sunlight that arrives."""

    @property
    def truth(self) -> NDArray[np.uint8]:
        """(y, x) `Cover`, the class of the truth."""
        return COVER[self.material]

    def radiance(self, band: int) -> F32:
        """(y, x) reflectance times light in one of `S2_BANDS`; 1 is a white sheet in the sun."""
        diffuse = _diffuse(band)
        out = SPECTRA[:, band][self.material]
        out *= self.gain
        lean = _LEAN[band]
        if lean:
            out *= 1 + self.tint * np.float32(lean)
        out *= self.lit * np.float32(1 - diffuse) + np.float32(diffuse)
        return out


_LEAN = (-0.9, -0.9, -0.1, 0.9, 0.6, 0.3, 0.2, 0.2, 0.2, 0.2, 0.4, 0.4)
"""How much each of `S2_BANDS` follows the tint."""


def _diffuse(band: int) -> float:
    red, green, blue, infrared = CITY.sky.diffuse
    return (blue * 1.05, blue, green, red, red * 0.9, *(infrared,) * 5, infrared * 0.6, infrared * 0.5)[band]


def city_ground(seed: int, window: Window) -> Ground:
    """Build a window of the city; any two windows agree where they overlap."""
    sun = sun_of(seed)
    outer = _with_margins(window, sun)
    site, canvas = paint_surface(seed, outer)
    fine = value_noise(key(seed, "fine"), site.frame.rows, site.frame.cols, 2)
    middle = value_noise(key(seed, "middle"), site.frame.rows, site.frame.cols, 9)
    plant_trees(seed, site.frame, canvas, (fine + middle) * np.float32(0.5))
    dark = shadow(canvas.height, sun)
    slope = relief(canvas.height, sun)
    vegetation = (canvas.material == Mat.TREE) | (canvas.material == Mat.CONIFER)
    roof = COVER[canvas.material] == 5
    slope = np.where(
        vegetation,
        np.clip(slope * np.float32(0.16), -0.45, 0.40),
        np.where(roof, np.clip(slope * np.float32(0.22), -0.30, 0.24), 0),
    )
    texture = TEXTURE[canvas.material]
    gain = canvas.gain * (
        1 + texture[..., 0] * fine + texture[..., 1] * middle + texture[..., 2] * site.patches
    )
    cut = window.shift(-outer.row, -outer.col).slices
    lit = (1 - dark) * (1 + slope)
    tint = (unit(site.lots.lot, 4) - np.float32(0.5)) * np.float32(0.22) + middle * np.float32(0.05)
    return Ground(window, canvas.material[cut], gain[cut], tint[cut], lit[cut])


def _with_margins(window: Window, sun: Sun) -> Window:
    """The window, what shades it, and an unfinished ring of tree cells; on the lattice of tree cells."""
    cell = CITY.layout.tree_cell
    margin = shadow_margin(sun)
    top = (window.row - margin.top - 2) // cell * cell - cell
    left = (window.col - margin.left - 2) // cell * cell - cell
    bottom = -(-(window.row_end + margin.bottom + 2) // cell) * cell + cell
    right = -(-(window.col_end + margin.right + 2) // cell) * cell + cell
    return Window(top, left, bottom - top, right - left)


def city_window(seed: int, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A window of the image and of the truth.

    Returns:
        (4, y, x) red, green, blue and near infrared, and (y, x) `Cover`.
    """
    ground = city_ground(seed, window.grow(1))
    image = sense(seed, ground, CITY.sensor, "first")
    return image, ground.truth[1:-1, 1:-1]


def sense(seed: int, ground: Ground, sensor: Sensor, name: str) -> NDArray[np.uint8]:
    """What a sensor of the city's own ground sampling distance makes of the ground.

    Args:
        seed: of the city.
        ground: one pixel wider on each side than the result.
        sensor: its numbers.
        name: of the sensor, so that two sensors have different noise.

    Returns:
        (4, y, x) digital numbers.
    """
    inner = ground.window.grow(-1)
    planes = [point_spread(ground.radiance(band), sensor.blur) for band in RGBN]
    return expose(seed, inner, planes, sensor, name)


def expose(seed: int, window: Window, planes: list[F32], sensor: Sensor, name: str) -> NDArray[np.uint8]:
    """Haze, gain, noise and gamma: from radiance to digital numbers."""
    rows = np.arange(window.row, window.row_end, dtype=np.int32)
    cols = np.arange(window.col, window.col_end, dtype=np.int32)
    uneven, wavelength = CITY.sky.haze_patches
    air = value_noise(key(seed, f"haze-{name}"), rows, cols, wavelength)
    air *= np.float32(uneven)
    air += np.float32(1 + key(seed, f"haze-level-{name}") / 2**32)
    noise = [hashed(key(seed, f"noise-{i}-{name}"), rows[:, None], cols[None, :]) for i in (0, 1)]
    table = _gamma(sensor)
    out = np.empty((4, *planes[0].shape), np.uint8)
    for i, plane in enumerate(planes):
        level = plane * np.float32(sensor.gain[i])
        level += air * np.float32(CITY.sky.haze[i] * sensor.haze)
        sigma = np.sqrt(level * np.float32(sensor.shot_noise**2) + np.float32(sensor.read_noise**2))
        sigma *= gauss(noise[i // 2], 16 * (i % 2))
        level += sigma
        level *= np.float32(_LEVELS / _SURFACE_TOP)
        np.clip(level, 0, _LEVELS, out=level)
        out[i] = table[level.astype(np.int16)]
    return out


def _gamma(sensor: Sensor) -> NDArray[np.uint8]:
    level = np.arange(_LEVELS + 1) * (_SURFACE_TOP / _LEVELS)
    numbers: NDArray[np.uint8] = np.clip(np.rint(255 * level ** (1 / sensor.gamma)), 1, 255).astype(np.uint8)
    return numbers


def point_spread(plane: F32, weight: float) -> F32:
    """Three-tap blur along both axes; one pixel is lost on each side."""
    centre, side = np.float32(1 - 2 * weight), np.float32(weight)
    across: F32 = plane[:, 1:-1] * centre + (plane[:, :-2] + plane[:, 2:]) * side
    out: F32 = across[1:-1] * centre + (across[:-2] + across[2:]) * side
    return out
