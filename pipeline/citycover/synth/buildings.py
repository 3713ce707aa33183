"""Buildings: one main body per lot, wings, sheds, roofs with slopes and things on them, drives and yards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from citycover.synth.canvas import Canvas
from citycover.synth.lots import Bool, Lots, rule_column, rule_table
from citycover.synth.materials import Mat
from citycover.synth.noise import F32, U32, hashed, mix, unit
from citycover.synth.parameters import Kind

_GABLE, _EMPTY = rule_table("gable", "empty")

_SETBACK, _DEPTH, _WIDTH, _HEIGHT = (
    (rule_column(n, 0), rule_column(n, 1)) for n in ("setback", "depth", "width", "height")
)

_PITCHED = np.array(
    [
        Mat.ROOF_RED,
        Mat.ROOF_RED,
        Mat.ROOF_BROWN,
        Mat.ROOF_RED,
        Mat.ROOF_DARK,
        Mat.ROOF_GREY,
        Mat.ROOF_BROWN,
        Mat.ROOF_DARK,
    ],
    np.uint8,
)

_FLAT = np.array(
    [
        Mat.ROOF_GREY,
        Mat.ROOF_DARK,
        Mat.ROOF_WHITE,
        Mat.ROOF_GREY,
        Mat.ROOF_PLANTED,
        Mat.ROOF_DARK,
        Mat.ROOF_BROWN,
        Mat.ROOF_BLUE,
    ],
    np.uint8,
)


def paint_buildings(
    canvas: Canvas, lots: Lots, use: NDArray[np.uint8], free: Callable[[tuple[F32, F32]], F32]
) -> None:
    """Build on every lot that has room.

    Args:
        canvas: painted in place.
        lots: of the canvas' pixels.
        use: from `uses_of`; only blocks of lots are built on.
        free: metres from a place at a given (y, x) shift from each pixel to the nearest obstacle.
    """
    buildable = (use == 0) & (lots.kind != Kind.FOREST)
    if not buildable.any():
        return
    bits, more = lots.lot, mix(lots.lot ^ np.uint32(0xA511E9B3))
    kind = lots.kind
    setback = _SETBACK[0][kind] + _SETBACK[1][kind] * unit(more)
    depth = np.minimum(_DEPTH[0][kind] + _DEPTH[1][kind] * unit(more, 8), lots.lot_depth - setback - 1)
    half = lots.frontage * np.float32(0.5) * np.minimum(_WIDTH[0][kind] + _WIDTH[1][kind] * unit(more, 16), 1)
    aside = (lots.frontage * np.float32(0.5) - half) * (unit(more, 24) - np.float32(0.5))
    radius = np.maximum(half, depth / 2)
    middle = setback + depth * np.float32(0.5)
    room = free(_towards(lots, middle, aside)) - radius * np.float32(1.15)
    exists = buildable & (unit(bits, 8) >= _EMPTY[kind]) & (room > 0) & (depth > 4) & (lots.depth > -1)
    t = lots.t - aside
    inward = lots.depth - setback
    body = exists & (np.abs(t) < half) & (inward > 0) & (inward < depth)
    wing = _wing(lots, exists, t, inward, half, depth, bits)
    whole = (body | wing) & ~lots.walk
    _pave_around(canvas, lots, exists, t, half, inward, depth, more)
    _roof(canvas, lots, whole, t, inward, half, depth)
    shed = exists & (kind == Kind.HOUSES) & (unit(bits, 16) < 0.45)
    shed &= (np.abs(lots.t + lots.frontage * np.float32(0.28)) < 1.9) & (
        np.abs(lots.lot_depth - lots.depth - np.float32(3.6)) < 2.1
    )
    canvas.paint(shed, Mat.ROOF_DARK, gain=1.3, height=2.4)
    canvas.trees[whole | shed] = 0


def _towards(lots: Lots, depth: F32, along: F32) -> tuple[F32, F32]:
    """(y, x) from each pixel to the point of its lot at a depth and a place along the front."""
    du = depth - lots.depth
    du = np.where(lots.far_side, -du, du)
    dv = along - lots.t
    return du * lots.sin + dv * lots.cos, du * lots.cos - dv * lots.sin


def _wing(lots: Lots, exists: Bool, t: F32, inward: F32, half: F32, depth: F32, bits: U32) -> Bool:
    """A rear wing makes an L of some houses; in the centre blocks are closed at their ends."""
    side = np.where(unit(bits, 16) < 0.5, t, -t)
    reach = depth * np.where(lots.kind == Kind.CENTRE, np.float32(1.9), np.float32(1.55))
    reach = np.minimum(reach, lots.lot_depth - 1)
    chance = np.where(lots.kind == Kind.ROWS, np.float32(0.25), np.float32(0.5))
    rear = exists & (unit(bits, 24) < chance) & (side > half * np.float32(0.1)) & (side < half)
    rear &= (inward > 0) & (inward < reach)
    closed = exists & (lots.kind == Kind.CENTRE) & (lots.end > 0) & (lots.end < 12)
    out: Bool = rear | closed
    return out


def _roof(canvas: Canvas, lots: Lots, where: Bool, t: F32, inward: F32, half: F32, depth: F32) -> None:
    """Material, slopes and height; flat roofs carry plant and skylights."""
    bits = mix(lots.lot ^ np.uint32(0x63D83595))
    kind = lots.kind
    pitched = unit(bits) < _GABLE[kind]
    # Row houses of one block share their roof, most of the time.
    palette = np.where((kind == Kind.ROWS) & (unit(bits, 8) < 0.7), lots.block, bits)
    material = np.where(
        pitched,
        _PITCHED[(palette >> np.uint32(16)) & np.uint32(7)],
        _FLAT[(palette >> np.uint32(16)) & np.uint32(7)],
    )
    gain = np.float32(0.78) + np.float32(0.5) * unit(bits, 24)
    height = _HEIGHT[0][kind] + _HEIGHT[1][kind] * unit(bits, 8)
    from_ridge = np.where(half > depth / 2, inward - depth / 2, t)
    span = np.minimum(half, depth / 2)
    rise = np.clip(span - np.abs(from_ridge), 0, None)
    canvas.paint(where, material, gain=gain, height=height + np.where(pitched, rise * np.float32(0.7), 0))
    flat = where & ~pitched
    large = flat & (span > 5)
    cell_u, cell_v = np.floor(inward / 6), np.floor(t / 7)
    plant = hashed(bits, cell_u.astype(np.int32), cell_v.astype(np.int32))
    inside = (np.abs(inward / 6 - cell_u - np.float32(0.5)) < 0.3) & (
        np.abs(t / 7 - cell_v - np.float32(0.5)) < 0.3
    )
    unit_on_roof = large & inside & (unit(plant) < 0.16) & (np.abs(inward - depth / 2) < depth / 2 - 2)
    canvas.paint(unit_on_roof, Mat.ROOF_GREY, gain=np.float32(0.6) + unit(plant, 8))
    canvas.height[unit_on_roof] += np.float32(1.6)
    seam = large & (kind == Kind.INDUSTRY) & (np.abs(t / 9 - np.floor(t / 9) - np.float32(0.5)) < 0.07)
    canvas.gain[seam] *= np.float32(1.18)
    parapet = flat & (np.minimum(half - np.abs(t), np.minimum(inward, depth - inward)) < 0.8)
    canvas.gain[parapet] *= np.float32(1.15)


def _pave_around(
    canvas: Canvas, lots: Lots, exists: Bool, t: F32, half: F32, inward: F32, depth: F32, bits: U32
) -> None:
    """Drives beside houses, terraces behind them, car parks of estates, yards of works."""
    kind = lots.kind
    beside = np.where(unit(bits, 24) < 0.5, t, -t)
    drive = (beside > half + np.float32(0.3)) & (beside < half + 3) & (inward < depth * np.float32(0.7))
    drive &= exists & (kind == Kind.HOUSES) & (unit(bits, 16) < 0.75)
    terrace = exists & (kind <= Kind.HOUSES) & (np.abs(t) < half) & (inward > 0) & (inward < depth + 3)
    paved = drive | terrace
    canvas.paint(paved, np.where(unit(bits, 8) < 0.6, np.uint8(Mat.PAVING), np.uint8(Mat.GRAVEL)))
    front = exists & (kind == Kind.ESTATE) & (inward < -2) & (lots.depth > 0) & (unit(bits) < 0.6)
    canvas.paint(front, Mat.ASPHALT_OLD)
    cell = np.floor(lots.t / np.float32(2.8))
    stall = hashed(bits, cell.astype(np.int32))
    parked = front & (lots.depth < 4.6) & (np.abs(lots.t / np.float32(2.8) - cell - np.float32(0.5)) < 0.34)
    parked &= unit(stall) < 0.6
    dark = np.where(unit(stall, 8) < 0.5, np.uint8(Mat.CAR_DARK), np.uint8(Mat.CAR_LIGHT))
    canvas.paint(parked, dark, gain=np.float32(0.75) + np.float32(0.5) * unit(stall, 16), height=1.5)
    near = exists & ((kind <= Kind.HOUSES) | (kind == Kind.ESTATE))
    canvas.trees[paved | front | (near & (np.abs(t) < half + 2) & (inward > -2) & (inward < depth + 2))] = 0
    # Stacks of goods in the yards of works.
    goods = hashed(bits, np.floor(lots.u / 5).astype(np.int32), np.floor(lots.v / 9).astype(np.int32))
    box = (
        (kind == Kind.INDUSTRY)
        & (inward > depth + 3)
        & (unit(goods) < 0.22)
        & (lots.lot_depth - lots.depth > 2)
    )
    box &= (np.abs(lots.u / 5 - np.floor(lots.u / 5) - np.float32(0.5)) < 0.3) & exists
    colours = np.array([Mat.CONCRETE, Mat.CAR_RED, Mat.CAR_DARK, Mat.CAR_LIGHT], np.uint8)
    canvas.paint(box, colours[(goods >> np.uint32(10)) & np.uint32(3)], gain=0.9, height=2.6)
