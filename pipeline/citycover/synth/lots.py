"""The middle scale: local streets, blocks and lots inside a district.

    street line k        lot row 0   lot row 1      line k + 1
        |  half | walk |  a ->    |    <- a   | walk | half |        u: across the block
        +-------+------+----------+----------+------+-------+
                          t: along the block, cut into lots of equal frontage (v)

A block lies between two neighbouring lines across (u) and two along (v); the lines along are shifted from
column to column, so streets meet in T junctions. Lots stand back to back and face the lines across.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.synth.districts import Cells, Districts, Frame, river_at
from citycover.synth.noise import F32, U32, hashed, unit
from citycover.synth.parameters import RULES, Kind

Bool = NDArray[np.bool_]

_LINE_JITTER = np.float32(0.26)

WALK = np.float32(1.8)
"""Width of a pavement, metres."""


def rule_table(*names: str) -> tuple[F32, ...]:
    """(kind,) arrays of scalar fields of the district rules, to be indexed by kind."""
    return tuple(np.array([getattr(RULES[k], name) for k in Kind], np.float32) for name in names)


def rule_column(name: str, column: int) -> F32:
    """(kind,) array of one entry of a tuple field of the district rules."""
    return np.array([getattr(RULES[k], name)[column] for k in Kind], np.float32)


_STREET, _FRONTAGE = rule_table("street", "frontage")

_BLOCK_U, _BLOCK_V = rule_column("block", 0), rule_column("block", 1)

_USES = [rule_column("uses", i) for i in range(4)]


@dataclass(frozen=True, slots=True)
class Lines:
    """Where a coordinate lies between two neighbouring lines of a jittered lattice."""

    index: NDArray[np.int32]
    """Number of the lower line."""
    low: F32
    """Metres from the lower line."""
    high: F32
    """Metres to the upper line."""
    low_half: F32
    """Half width of the street on the lower line."""
    high_half: F32
    """Half width of the street on the upper line."""


def _lines(coordinate: F32, step: F32, lattice_key: U32, half: F32) -> Lines:
    nominal = np.floor(coordinate / step + np.float32(0.5))
    m = nominal.astype(np.int32)
    near_bits = hashed(lattice_key, m)
    near = (nominal + _LINE_JITTER * (unit(near_bits) - np.float32(0.5))) * step
    above = coordinate >= near
    n = np.where(above, m + 1, m - 1)
    far_bits = hashed(lattice_key, n)
    far = (n.astype(np.float32) + _LINE_JITTER * (unit(far_bits) - np.float32(0.5))) * step
    d_near, d_far = np.abs(coordinate - near), np.abs(far - coordinate)
    half_near, half_far = _half(half, near_bits), _half(half, far_bits)
    return Lines(
        np.minimum(m, n),
        np.where(above, d_near, d_far),
        np.where(above, d_far, d_near),
        np.where(above, half_near, half_far),
        np.where(above, half_far, half_near),
    )


def _half(half: F32, bits: U32) -> F32:
    """Half width of a street: every fourth is a collector."""
    out: F32 = half + half * np.float32(0.5) * ((bits >> np.uint32(8)) & np.uint32(3) == 0)
    return out


@dataclass(frozen=True, slots=True)
class Lots:
    """Each pixel's place among streets, blocks and lots; all (y, x), metres."""

    kind: NDArray[np.uint8]
    cos: F32
    sin: F32
    u: F32
    v: F32
    """Coordinates in the district's own frame."""
    across: Lines
    along: Lines
    block: U32
    """Random bits of the block."""
    lot: U32
    """Random bits of the lot."""
    far_side: Bool
    """Whether the lot faces the upper line."""
    depth: F32
    """From the front of the lot inwards; negative on the street."""
    lot_depth: F32
    """From the front of the lot to the middle of the block."""
    t: F32
    """Along the front, from the middle of the lot."""
    frontage: F32
    """Length of the front."""
    end: F32
    """Distance to the nearer end of the block's row of lots; negative on the street."""

    @property
    def street(self) -> Bool:
        """Carriageways of local streets."""
        a, b = self.across, self.along
        return (a.low < a.low_half) | (a.high < a.high_half) | (b.low < b.low_half) | (b.high < b.high_half)

    @property
    def walk(self) -> Bool:
        """Streets and pavements."""
        return (self.depth < 0) | (self.end < 0)


def lots_of(frame: Frame, table: Districts, cells: Cells) -> Lots:
    """Place every pixel of a frame."""
    own = cells.own
    kind = table.kind[own]
    cos, sin = table.cos[own], table.sin[own]
    dy, dx = frame.y - table.y[own], frame.x - table.x[own]
    u = dx * cos + dy * sin
    v = dy * cos - dx * sin
    lattice_key = table.key[own]
    half = _STREET[kind]
    across = _lines(u, _BLOCK_U[kind], lattice_key, half)
    column = hashed(lattice_key ^ np.uint32(0x5BD1E995), across.index)
    step = _BLOCK_V[kind]
    along = _lines(v + unit(column) * step, step, column, half)
    block = hashed(column, along.index)
    return _divide(kind, (cos, sin, u, v), across, along, block)


def _divide(
    kind: NDArray[np.uint8], axes: tuple[F32, F32, F32, F32], across: Lines, along: Lines, block: U32
) -> Lots:
    """Cut blocks into two rows of lots of equal frontage."""
    width = across.low + across.high
    far_side = across.low > across.high
    depth = np.where(far_side, across.high - across.high_half, across.low - across.low_half) - WALK
    lot_depth = width * np.float32(0.5) - np.where(far_side, across.high_half, across.low_half) - WALK
    begin = along.low - along.low_half - WALK
    length = begin + (along.high - along.high_half - WALK)
    number = np.maximum(np.floor(length / _FRONTAGE[kind] + np.float32(0.5)), 1)
    frontage: F32 = np.divide(length, number)
    place = np.floor(begin / frontage)
    lot = hashed(block, place.astype(np.int32) * 2 + far_side)
    return Lots(
        kind, *axes, across, along, block, lot, far_side, depth, lot_depth,
        begin - (place + np.float32(0.5)) * frontage, frontage, np.minimum(begin, length - begin),
    )  # fmt: skip


def uses_of(lots: Lots) -> NDArray[np.uint8]:
    """(y, x) what the whole block is used for: 0 lots, 1 green, 2 parking, 3 construction site, 4 sports."""
    draw = unit(lots.block, 8)
    out = np.zeros(draw.shape, np.uint8)
    for use in (4, 3, 2, 1):
        np.copyto(out, np.uint8(use), where=draw < _USES[use - 1][lots.kind])
    return out


def free_distance(seed: int, frame: Frame, table: Districts, cells: Cells, shift: tuple[F32, F32]) -> F32:
    """Metres from places near the pixels to the nearest arterial road or river bank; negative inside.

    Args:
        seed: of the city.
        frame: the pixels.
        table: districts around the frame.
        cells: the pixels' districts.
        shift: (y, x) from each pixel to its place, metres in bent space; places of one lot coincide, so
            a house is wholly there or wholly absent.
    """
    dy, dx = shift
    river = river_at(seed, frame.y + dy, frame.x + dx)
    free = np.abs(river.offset) - river.half_width - 7
    roads = table.arterial[cells.own]
    for edge in cells.edge:
        road = (roads + table.arterial[edge.other]) / 2
        distance = edge.distance - edge.normal[0] * dy - edge.normal[1] * dx
        np.minimum(free, distance - road - 3, out=free)
    return free
