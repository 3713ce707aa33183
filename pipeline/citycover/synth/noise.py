"""Noise that is a function of coordinates: hashed lattices, no generator state, no seams.

Everything here is built from operations that IEEE 754 rounds exactly (no sin, exp or pow on arrays), so a
pixel has the same value whatever window it is computed in.
"""

from __future__ import annotations

import zlib
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

U32 = NDArray[np.uint32]

_GAUSS_BITS = 12

_GAUSS: F32 = np.array(
    [NormalDist().inv_cdf((i + 0.5) / (1 << _GAUSS_BITS)) for i in range(1 << _GAUSS_BITS)], dtype=np.float32
)


def key(seed: int, purpose: str) -> int:
    """A 32-bit key for one purpose; keys of different seeds or purposes are unrelated."""
    return zlib.crc32(f"{seed}/{purpose}".encode())


def mix(values: U32) -> U32:
    """Scramble 32-bit integers so that neighbours become unrelated (the `lowbias32` finaliser).

    Source: C. Wellons, "Prospecting for Hash Functions" (2018), public domain.
    """
    h = values ^ (values >> np.uint32(16))
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


def hashed(lattice_key: int | U32, a: NDArray[Any], b: NDArray[Any] | None = None) -> U32:
    """32 random bits for each lattice point (a, b); arrays broadcast, `lattice_key` may be one too."""
    base = np.asarray(lattice_key, dtype=np.uint32)
    h = _bits(a) * np.uint32(0x9E3779B1) + base
    return mix(h) if b is None else mix(mix(h) + _bits(b) * np.uint32(0x85EBCA77))


def _bits(values: NDArray[Any]) -> U32:
    return np.atleast_1d(values).astype(np.int32).view(np.uint32)


def unit(bits: U32, shift: int = 0) -> F32:
    """Eight of the 32 bits as a number in [0, 1]: one hash serves four independent draws."""
    return ((bits >> np.uint32(shift)) & np.uint32(255)).astype(np.float32) * np.float32(1 / 255)


def gauss(bits: U32, shift: int = 0) -> F32:
    """Standard normal numbers from 12 of the 32 bits, by a table of quantiles."""
    quantile: F32 = _GAUSS[(bits >> np.uint32(shift)) & np.uint32((1 << _GAUSS_BITS) - 1)]
    return quantile


def value_noise(lattice_key: int, rows: NDArray[np.int32], cols: NDArray[np.int32], cell: int) -> F32:
    """Smooth noise in [-1, 1] on a grid of pixels.

    Args:
        lattice_key: from `key`.
        rows: (y,) absolute pixel rows, ascending by one.
        cols: (x,) absolute pixel columns, ascending by one.
        cell: lattice spacing in pixels.

    Returns:
        (y, x) noise.
    """
    iy, ty = _cells(rows, cell)
    ix, tx = _cells(cols, cell)
    lattice = _lattice(lattice_key, iy, ix)
    iy, ix = iy - iy[0], ix - ix[0]
    low = lattice[iy]
    across = low + (lattice[iy + 1] - low) * ty[:, None]  # (y, lattice columns)
    left = np.take(across, ix, axis=1)
    out: F32 = np.take(across, ix + 1, axis=1)
    out -= left
    out *= tx
    out += left
    return out


def _cells(pixels: NDArray[np.int32], cell: int) -> tuple[NDArray[np.int32], F32]:
    index = pixels // np.int32(cell)
    t = ((pixels - index * cell).astype(np.float32) + np.float32(0.5)) / np.float32(cell)
    return index, t * t * (3 - 2 * t)


def _lattice(lattice_key: int, iy: NDArray[np.int32], ix: NDArray[np.int32]) -> F32:
    ys = np.arange(iy[0], iy[-1] + 2, dtype=np.int32)[:, None]
    xs = np.arange(ix[0], ix[-1] + 2, dtype=np.int32)[None, :]
    return (hashed(lattice_key, ys, xs) >> np.uint32(8)).astype(np.float32) * np.float32(2 / 0xFFFFFF) - 1


def line_noise(lattice_key: int, along: F32, cell: float) -> F32:
    """Smooth one-dimensional noise in [-1, 1] at arbitrary positions, in metres along a line."""
    s = along * np.float32(1 / cell)
    base = np.floor(s)
    t = s - base
    t = t * t * (3 - 2 * t)
    index = base.astype(np.int32)
    first = int(index.min())
    knots = np.arange(first, int(index.max()) + 2, dtype=np.int32)
    lattice = (hashed(lattice_key, knots) >> np.uint32(8)).astype(np.float32) * np.float32(2 / 0xFFFFFF) - 1
    index -= first
    low = lattice[index]
    out: F32 = low + (lattice[index + 1] - low) * t
    return out
