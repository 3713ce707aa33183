"""The large scale: districts, the roads between them, and rivers.

Space is bent once (`bend`) and everything is laid out in the bent coordinates, so streets, lots, houses
and the river follow the same curves. Districts are the Voronoi cells of jittered lattice points, arterial
roads their edges, rivers meandering lines. Nothing looks farther than a few lattice cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.synth.noise import F32, hashed, key, line_noise, value_noise
from citycover.synth.parameters import CITY, RULES, Kind

Index = NDArray[np.intp]

_CHUNK = 128
"""Voronoi cells are found in squares of this size: few candidates, and arrays that stay in the cache."""

_CODE = np.int32(63)


@dataclass(frozen=True, slots=True)
class District:
    """One district; coordinates in bent metres."""

    y: float
    x: float
    kind: Kind
    angle: float
    """Direction of its streets, radians."""
    key: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows and columns of a window, and where its pixels lie in bent space."""

    window: Window
    rows: NDArray[np.int32]
    """(y,) absolute rows."""
    cols: NDArray[np.int32]
    """(x,) absolute columns."""
    y: F32
    """(y, x) bent coordinate, metres."""
    x: F32
    """(y, x) bent coordinate, metres."""


def bend(seed: int, window: Window) -> Frame:
    """The pixels of a window in bent space."""
    rows = np.arange(window.row, window.row_end, dtype=np.int32)
    cols = np.arange(window.col, window.col_end, dtype=np.int32)
    y = np.zeros((window.height, window.width), np.float32)
    x = np.zeros_like(y)
    for amplitude, wavelength in CITY.layout.warp:
        a = np.float32(amplitude)
        y += a * value_noise(key(seed, f"bend-y-{wavelength}"), rows, cols, wavelength)
        x += a * value_noise(key(seed, f"bend-x-{wavelength}"), rows, cols, wavelength)
    planned = value_noise(key(seed, "planned"), rows, cols, 900)
    freedom = np.clip(planned * 2 + np.float32(0.6), 0, 1)  # 0: straight streets, 1: as they grew
    y *= freedom
    x *= freedom
    y += rows[:, None].astype(np.float32)
    x += cols[None, :].astype(np.float32)
    return Frame(window, rows, cols, y, x)


def _draws(seed: int, purpose: str, i: int, j: int, n: int) -> list[float]:
    """`n` uniform numbers in [0, 1) of one lattice cell."""
    index = np.arange(n, dtype=np.int32)
    cell_key = int(hashed(key(seed, purpose), np.array([i]), np.array([j]))[0])
    return [int(h) / 2**32 for h in hashed(cell_key, index)]


@lru_cache(maxsize=4096)
def town(seed: int, i: int, j: int) -> tuple[float, float, float]:
    """(y, x, radius) of the town in one cell of the town lattice."""
    layout = CITY.layout
    dy, dx, r = _draws(seed, "town", i, j, 3)
    y = 1024 + i * layout.town + (dy - 0.5) * 460
    x = 1024 + j * layout.town + (dx - 0.5) * 460
    return y, x, layout.town_radius[0] + layout.town_radius[1] * r


def _kind(seed: int, y: float, x: float, draw: float, tilt: float) -> Kind:
    """What stands at a place: dense in the middle of a town, fields and woods between towns."""
    spacing = CITY.layout.town
    i0, j0 = round((y - 1024) / spacing), round((x - 1024) / spacing)
    towns = [town(seed, i, j) for i in (i0 - 1, i0, i0 + 1) for j in (j0 - 1, j0, j0 + 1)]
    out = min(math.hypot(y - ty, x - tx) / r for ty, tx, r in towns) + (tilt - 0.5) * 0.3
    shares = next(shares for limit, shares in _MIXES if out < limit)
    total = 0.0
    for kind, share in shares:
        total += share
        if draw < total:
            return kind
    return shares[-1][0]


_MIXES: tuple[tuple[float, tuple[tuple[Kind, float], ...]], ...] = (
    (0.30, ((Kind.CENTRE, 0.85), (Kind.PARK, 0.15))),
    (0.62, ((Kind.ROWS, 0.36), (Kind.ESTATE, 0.26), (Kind.HOUSES, 0.14), (Kind.INDUSTRY, 0.12),
            (Kind.PARK, 0.12))),
    (1.02, ((Kind.HOUSES, 0.46), (Kind.INDUSTRY, 0.22), (Kind.ESTATE, 0.10), (Kind.PARK, 0.08),
            (Kind.FIELDS, 0.14))),
    (math.inf, ((Kind.FIELDS, 0.58), (Kind.FOREST, 0.24), (Kind.HOUSES, 0.12), (Kind.INDUSTRY, 0.06))),
)  # fmt: skip
"""Shares of the kinds of district by distance from the town's centre, in town radii."""


@lru_cache(maxsize=65536)
def district(seed: int, i: int, j: int) -> District:
    """The district in one cell of the district lattice."""
    layout = CITY.layout
    dy, dx, draw, tilt, turn = _draws(seed, "district", i, j, 5)
    y = (i + 0.5 + (2 * dy - 1) * layout.district_jitter) * layout.district
    x = (j + 0.5 + (2 * dx - 1) * layout.district_jitter) * layout.district
    # A town's grid turns little from district to district, some districts ignore it.
    common = (key(seed, "town-angle") / 2**32 - 0.5) * 1.2
    angle = common + (turn - 0.5) * (0.24 if draw * 7 % 1 < 0.6 else 1.5)
    own_key = int(hashed(key(seed, "district-key"), np.array([i]), np.array([j]))[0])
    return District(y, x, _kind(seed, y, x, draw, tilt), angle, own_key)


@dataclass(frozen=True, slots=True)
class Districts:
    """The districts that matter to a window, as columns of a table."""

    members: tuple[District, ...]
    y: F32
    x: F32
    cos: F32
    sin: F32
    kind: NDArray[np.uint8]
    arterial: F32
    """Half width of the roads on its border."""
    key: NDArray[np.uint32]


def districts_around(seed: int, frame: Frame) -> Districts:
    """All districts that can be among the nearest three of a pixel of the frame."""
    spacing = CITY.layout.district
    i0, i1 = (math.floor(float(v) / spacing) for v in (frame.y.min(), frame.y.max()))
    j0, j1 = (math.floor(float(v) / spacing) for v in (frame.x.min(), frame.x.max()))
    members = tuple(district(seed, i, j) for i in range(i0 - 2, i1 + 3) for j in range(j0 - 2, j1 + 3))
    return Districts(
        members,
        np.array([d.y for d in members], np.float32),
        np.array([d.x for d in members], np.float32),
        np.array([math.cos(d.angle) for d in members], np.float32),
        np.array([math.sin(d.angle) for d in members], np.float32),
        np.array([d.kind for d in members], np.uint8),
        np.array([RULES[d.kind].arterial for d in members], np.float32),
        np.array([d.key for d in members], np.uint32),
    )


@dataclass(frozen=True, slots=True)
class Cells:
    """Which district each pixel is in, and how far it is to the two nearest edges."""

    own: Index
    """(y, x) row of the district table."""
    edge: tuple[Edge, Edge]


@dataclass(frozen=True, slots=True)
class Edge:
    """The edge towards one neighbour."""

    other: Index
    """(y, x) row of the neighbour in the district table."""
    distance: F32
    """(y, x) metres to the edge."""
    normal: tuple[F32, F32]
    """(y, x) each: the direction (y, x) in which the distance falls by one per metre."""


def voronoi(frame: Frame, table: Districts) -> Cells:
    """Find each pixel's district and its two nearest edges."""
    shape = frame.y.shape
    nearest = np.empty((3, *shape), np.uint8)
    for top in range(0, shape[0], _CHUNK):
        for left in range(0, shape[1], _CHUNK):
            part = np.s_[top : top + _CHUNK, left : left + _CHUNK]
            nearest[(slice(None), *part)] = _nearest_three(frame.y[part], frame.x[part], table)
    own, second, third = nearest.astype(np.intp)
    return Cells(own, (_edge(frame, table, own, second), _edge(frame, table, own, third)))


def _nearest_three(y: F32, x: F32, table: Districts) -> NDArray[np.uint8]:
    """(3, y, x) rows of the three nearest districts.

    The index of a candidate rides in the six lowest bits of its squared distance, so that two `minimum`
    and one `maximum` keep a sorted list of both.
    """
    ids = _candidates(y, x, table)
    first, second, third = (np.full(y.shape, np.iinfo(np.int32).max, np.int32) for _ in range(3))
    for code, k in enumerate(ids):
        dy, dx = y - table.y[k], x - table.x[k]
        dy *= dy
        dx *= dx
        dy += dx
        score = dy.view(np.int32)  # non-negative floats sort like their bits
        score &= ~_CODE
        score |= np.int32(code)
        third = np.minimum(third, np.maximum(second, score))
        second = np.minimum(second, np.maximum(first, score))
        first = np.minimum(first, score)
    nearest: NDArray[np.uint8] = ids.astype(np.uint8)[np.stack([first, second, third]) & _CODE]
    return nearest


def _candidates(y: F32, x: F32, table: Districts) -> Index:
    """Rows of the districts that may be among the nearest three of a pixel inside the bounds of (y, x)."""
    y0, y1, x0, x1 = float(y.min()), float(y.max()), float(x.min()), float(x.max())
    near_y = np.maximum(np.maximum(y0 - table.y, table.y - y1), 0)
    near_x = np.maximum(np.maximum(x0 - table.x, table.x - x1), 0)
    far_y = np.maximum(np.abs(table.y - y0), np.abs(table.y - y1))
    far_x = np.maximum(np.abs(table.x - x0), np.abs(table.x - x1))
    far = np.sort(far_y * far_y + far_x * far_x)[2]
    ids = np.flatnonzero(near_y * near_y + near_x * near_x <= far * 1.001)
    assert len(ids) <= 64, "a chunk is much smaller than a district"
    return ids


def _edge(frame: Frame, table: Districts, own: Index, other: Index) -> Edge:
    """Distance to the bisector of two districts."""
    pairs, inverse = _pairs(own, other)
    a, b = pairs
    dy, dx = table.y[b] - table.y[a], table.x[b] - table.x[a]
    length: F32 = np.sqrt(dy * dy + dx * dx)
    length = np.where(length > 0, length, np.float32(1))
    ny: F32 = dy / length
    nx: F32 = dx / length
    reach = length * np.float32(0.5) + ny * table.y[a] + nx * table.x[a]
    normal_y, normal_x = ny[inverse], nx[inverse]
    distance = reach[inverse]
    distance -= normal_y * frame.y
    distance -= normal_x * frame.x
    return Edge(other, distance, (normal_y, normal_x))


def _pairs(own: Index, other: Index) -> tuple[tuple[Index, Index], Index]:
    """The few pairs of districts that meet, and for each pixel which of them it is."""
    code = own * 256 + other
    present = np.flatnonzero(np.bincount(code.ravel()))
    where = np.zeros(int(present[-1]) + 1, np.intp)
    where[present] = np.arange(len(present))
    return (present // 256, present % 256), where[code]


@dataclass(frozen=True, slots=True)
class RiverPlace:
    """How places lie to the nearest river."""

    offset: F32
    """Signed metres across the stream from its centre line."""
    half_width: F32


def river_at(seed: int, y: F32, x: F32) -> RiverPlace:
    """Where places in bent space lie to the nearest river."""
    layout = CITY.layout
    turn = (key(seed, "river-angle") / 2**32 - 0.5) * 1.3
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    town_y, town_x, _ = town(seed, 0, 0)
    beside = 190 if key(seed, "river-side") % 2 else -190
    along = (x - np.float32(town_x)) * cos + (y - np.float32(town_y)) * sin
    across = (y - np.float32(town_y)) * cos - (x - np.float32(town_x)) * sin - np.float32(beside)
    index = np.floor(across * np.float32(1 / layout.river) + np.float32(0.5))
    across -= index * np.float32(layout.river)
    shifted = along + index * np.float32(7919)  # each river meanders in its own way
    for amplitude, wavelength in layout.meander:
        across -= np.float32(amplitude) * line_noise(key(seed, f"meander-{wavelength}"), shifted, wavelength)
    mean, variation = layout.river_half_width
    half = np.float32(mean) + np.float32(variation) * line_noise(key(seed, "river-width"), shifted, 420.0)
    return RiverPlace(across, half)
