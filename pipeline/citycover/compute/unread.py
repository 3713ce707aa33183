"""Blocks of an unfinished run that were made while parts of the imagery could not be read.

A server that failed may be well again, a disk mounted: when the run goes on, they are computed anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import product

from citycover.geometry.window import Window
from citycover.plan.plan import Plan
from citycover.scene.scene import Scene
from citycover.store.ledger import BlockRecord


def blocks_to_read_again(
    records: Iterable[BlockRecord], plan: Plan, scene: Scene
) -> tuple[tuple[int, int], ...]:
    """Finished blocks that a hole may have touched; what was known to be lost when it began is lost still.

    Args:
        records: of all finished blocks; a hole may stand in the entry of a neighbour, which was read first.
        plan: of the run.
        scene: that is mapped.
    """
    sheets = (sheet for group in scene.groups for sheet in group.sheets)
    lost = {loss.path for sheet in sheets for band in sheet.bands for loss in band.losses}
    there = {record.index: record for record in records}
    unread = [record for record in there.values() if any(hole.path not in lost for hole in record.holes)]
    touched = {record.index for record in unread}
    for window in dict.fromkeys(h.window for r in unread for h in r.holes if h.path not in lost):
        touched.update(index for index in _blocks_near(window, plan) if index in there)
    return tuple(sorted(touched))


def _blocks_near(window: Window, plan: Plan) -> Iterator[tuple[int, int]]:
    """Blocks whose windows look at a part of the scene."""
    seen = window.shift(-plan.origin[0], -plan.origin[1]).grow(max(plan.y.window, plan.x.window))
    ends = ((seen.row, seen.row_end), (seen.col, seen.col_end))
    sides = zip(ends, plan.block_shape, plan.block_counts, strict=True)
    yield from product(*(_reached(low, high, plan.scale, side, count) for (low, high), side, count in sides))


def _reached(low: int, high: int, scale: Fraction, side: int, count: int) -> range:
    """Blocks of a side along an axis, from an input pixel to another."""
    return range(
        max(0, math.floor(low * scale) // side), max(0, min(count, math.ceil(high * scale) // side + 1))
    )
