"""Sun and shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from citycover.synth.noise import F32, key
from citycover.synth.parameters import CITY

_STEPS = (1, 2, 4, 8, 16)
"""Distances that add up to the longest shadow, 31 m."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the light comes from."""

    azimuth: float
    """Degrees clockwise from north."""
    elevation: float
    """Degrees above the horizon."""

    @property
    def towards(self) -> tuple[float, float]:
        """Unit vector (rows, columns) on the ground towards the sun."""
        a = math.radians(self.azimuth)
        return -math.cos(a), math.sin(a)

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """Whole-pixel steps (rows, columns) towards the sun, each about twice the one before."""
        dy, dx = self.towards
        return tuple((round(dy * n), round(dx * n)) for n in _STEPS)


def sun_of(seed: int) -> Sun:
    """The sun of a city; two cities differ, one city has one."""
    (a0, a1), (e0, e1) = CITY.sky.azimuth, CITY.sky.elevation
    return Sun(a0 + (a1 - a0) * key(seed, "azimuth") / 2**32, e0 + (e1 - e0) * key(seed, "elevation") / 2**32)


@dataclass(frozen=True, slots=True)
class Margin:
    """Pixels beyond each side of a window that reach into it."""

    top: int
    bottom: int
    left: int
    right: int


def shadow_margin(sun: Sun) -> Margin:
    """From how far shadows fall into a window."""
    rows = sum(r for r, _ in sun.offsets)
    cols = sum(c for _, c in sun.offsets)
    return Margin(max(-rows, 0), max(rows, 0), max(-cols, 0), max(cols, 0))


def shadow(height: F32, sun: Sun) -> F32:
    """How deep each pixel lies in shadow, 0 lit to 1 dark.

    The highest ray that grazes anything towards the sun, found by doubling: after step k it is the highest
    over 2^k - 1 metres. Pixels within `shadow_margin` of the sunward border see too little.

    Args:
        height: (y, x) metres.
        sun: of the city.
    """
    fall = math.tan(math.radians(sun.elevation))
    ray = height.copy()
    for rows, cols in sun.offsets:
        drop = np.float32(math.hypot(rows, cols) * fall)
        here, there = _overlap(ray.shape, rows, cols)
        moved = ray[there] - drop
        ray[here] = np.maximum(ray[here], moved)
    ray -= height
    ray -= np.float32(0.2)
    return np.clip(ray, 0, 1, out=ray)


def relief(height: F32, sun: Sun) -> F32:
    """Slope of each pixel towards the sun, metres over two pixels; positive faces it."""
    rows, cols = (round(v * 1.2) for v in sun.towards)
    out = np.zeros_like(height)
    here, there = _overlap(height.shape, rows, cols)
    out[here] = height[here] - height[there]
    return out


def _overlap(shape: tuple[int, ...], rows: int, cols: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the part of an array that has a neighbour at (rows, cols), and of these neighbours."""
    here, there = [], []
    for size, step in zip(shape, (rows, cols), strict=True):
        here.append(slice(max(-step, 0), size - max(step, 0)))
        there.append(slice(max(step, 0), size - max(-step, 0)))
    return (here[0], here[1]), (there[0], there[1])
