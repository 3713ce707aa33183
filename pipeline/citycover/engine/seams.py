"""Verifying seams: the same places mapped once more, by windows on a shifted grid.

A few patches of the scene are computed again with windows that start half a step later, so what was a seam
is now the middle of a window, and the other way round. What differs is what the map owes to where its windows
happen to lie:

    windows of the map   |-------:-------|-------:-------|       at seams: near a handover of either grid
    shifted              :-------|-------:-------|-------:       interior: all else
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.engine.agreement import Seams
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.open import open_field
from citycover.geometry.window import Window
from citycover.model.predictor import Predictor
from citycover.plan.axis import Axis
from citycover.plan.layers import CLASSES
from citycover.plan.plan import Plan
from citycover.read.reader import Reader

_PATCHES = 4
"""Places along the scene's diagonal."""

_SHARE = 0.05
"""Most of the windows of the map that may be computed once more, one patch at least."""


def verify_seams(
    plan: Plan,
    predictor: Predictor,
    open_readers: Callable[[], Sequence[Reader]],
    read_classes: Callable[[Window], NDArray[np.uint8]],
    stop: threading.Event | None = None,
    evidence: LabelEvidence | None = None,
) -> Seams:
    """Map patches on a shifted grid and compare them with the finished map.

    Args:
        plan: of the map.
        predictor: the same network, device and precision.
        open_readers: one reader a band group, as for the map.
        read_classes: output window -> (y, x) classes of the map.
        stop: set it, and the comparison ends.
        evidence: labels beside the network, as for the map.

    Raises:
        StoppedError: `stop` was set.
    """
    differ = {"seams": 0, "interior": 0}
    seen = {"seams": 0, "interior": 0}
    nodata = predictor.card.legend.product_nodata
    unit = math.lcm(
        predictor.card.stride,
        predictor.card.output_scale.denominator,
        *(g.ratio for g in predictor.card.groups),
    )
    given = SweepInput(plan, predictor, open_readers, stop=stop or threading.Event())
    for window in shifted_patches(plan, unit):
        again = _map_patch(plan, window, given, evidence)
        place = _output(plan, window)
        before = read_classes(place)
        valid = (again != nodata) & (before != nodata)
        near = _near_seams(plan, place, window)
        for name, where in (("seams", valid & near), ("interior", valid & ~near)):
            seen[name] += int(where.sum())
            differ[name] += int((again != before)[where].sum())
    shares = {name: differ[name] / seen[name] if seen[name] else None for name in seen}
    return Seams(shares["seams"], shares["interior"], seen["seams"] + seen["interior"])


def shifted_patches(plan: Plan, unit: int) -> list[Window]:
    """Patches of 2 x 2 shifted windows along the diagonal, in input pixels of the mapped area.

    Along an axis of a single window there is no seam: the patch takes all of it, not shifted.

    Args:
        plan: of the map.
        unit: shifts are multiples of this.
    """
    y, x = (_spans(axis, unit) for axis in (plan.y, plan.x))
    if plan.y.count == 1 and plan.x.count == 1:
        return []
    allowed = max(1, min(_PATCHES, int(_SHARE * plan.windows / 4)))
    places = sorted({round(k * 8 / max(1, allowed)) for k in range(allowed)}) if allowed > 1 else [4]
    picked = {(y[k * (len(y) - 1) // 8], x[k * (len(x) - 1) // 8]) for k in places}
    return [Window(a[0], b[0], a[1] - a[0], b[1] - b[0]) for a, b in sorted(picked)]


def _spans(axis: Axis, unit: int) -> list[tuple[int, int]]:
    """First and last pixel of every patch that there could be along an axis."""
    if axis.count == 1:
        return [(0, axis.size)]
    shift = max(unit, axis.step // 2 // unit * unit)
    starts = range(shift, axis.size - shift, axis.step)
    spans = [(s, min(s + 2 * axis.step, axis.size // unit * unit)) for s in starts]
    return [(s, e) for s, e in spans if e > s] or [(0, axis.size)]


def _map_patch(
    plan: Plan, window: Window, given: SweepInput, evidence: LabelEvidence | None
) -> NDArray[np.uint8]:
    """(y, x) classes of a patch, by windows anchored to its first pixel; they see the scene around it."""
    place = _output(plan, window)
    grid: GeoBox = plan.grid[place.slices]
    shifted = replace(
        plan,
        grid=grid,
        origin=(plan.origin[0] + window.row, plan.origin[1] + window.col),
        y=replace(plan.y, size=window.height),
        x=replace(plan.x, size=window.width),
        block_shape=(place.height, place.width),
    )
    field = open_field(evidence, grid, given.predictor.device)
    again = replace(given, plan=shifted, layers=(CLASSES,), evidence=field)
    return next(iter(sweep(again, [shifted.block(0, 0)]))).layers[CLASSES.name]


def _output(plan: Plan, window: Window) -> Window:
    """Output pixels of a window of input pixels, cut where the output ends."""
    row, col = int(window.row * plan.scale), int(window.col * plan.scale)
    height = min(plan.output(window.height), plan.shape[0] - row)
    width = min(plan.output(window.width), plan.shape[1] - col)
    return Window(row, col, height, width)


def _near_seams(plan: Plan, place: Window, window: Window) -> NDArray[np.bool_]:
    """(y, x) True within a feather (at least 8 px) of where windows of either grid hand over."""
    near = [
        _near(axis, plan, first, length, start)
        for axis, first, length, start in (
            (plan.y, place.row, place.height, window.row),
            (plan.x, place.col, place.width, window.col),
        )
    ]
    return near[0][:, None] | near[1][None, :]


def _near(axis: Axis, plan: Plan, first: int, length: int, start: int) -> NDArray[np.bool_]:
    step, reach = plan.output(axis.step), max(8, plan.output(axis.feather))
    pixels = np.arange(first, first + length)
    near = np.zeros(length, np.bool_)
    if axis.count > 1:
        for anchor in (0, plan.output(start)):
            offset = (pixels - anchor) % step
            near |= np.minimum(offset, step - offset) <= reach
    return near
