"""Polygons of a map, strip by strip, without cuts where strips meet.

Strategy:

1.  In each strip, label the patches and let GDAL's polygonizer draw them (pixel coordinates, whole numbers).
2.  A patch that touches neither edge of its strip is finished, and leaves.
3.  A part at an edge is held open, and grows by the parts that it touches in the next strip. When the next
    strip goes on without it, its parts are united; corners that the cut alone made lie on straight lines and
    are dropped.

        strip 1  | AAAA  B |      A is open: its parts wait
                 +-AA------+
        strip 2  | AAAAAAA |      B has left, A ends here: one polygon, no line where the strips met
                 |  CC     |

Memory: a strip, and the parts of what is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.derive.patches import first_of, joined, label_patches, unique_pairs
from citycover.derive.source import Strip


@dataclass(frozen=True)
class Patches:
    """Finished patches with their outlines."""

    outlines: NDArray[np.object_]
    """(n,) polygons in pixel coordinates (x to the right, y down, corners at whole numbers)."""
    ranks: NDArray[np.int16]
    """(n,) place of the class in the legend."""
    sums: NDArray[np.int64]
    """(n, 3) units of area, pixels that have a confidence, and the sum of it in steps of 1/255."""

    def __len__(self) -> int:
        return len(self.ranks)

    @classmethod
    def concatenate(cls, parts: list[Patches]) -> Patches:
        """All in one."""
        return cls(
            np.concatenate([p.outlines for p in parts]),
            np.concatenate([p.ranks for p in parts]),
            np.concatenate([p.sums for p in parts]),
        )

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(n,) mean, 0..1; NaN where there is none."""
        mean: NDArray[np.float64] = np.divide(
            self.sums[:, 2], 255 * self.sums[:, 1], out=np.full(len(self), np.nan), where=self.sums[:, 1] > 0
        )
        return mean


@dataclass
class _Open:
    """A patch that may go on in the next strip."""

    rank: int
    parts: list[NDArray[np.object_]] = field(default_factory=list)
    sums: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))

    def add(self, other: _Open) -> None:
        self.parts += other.parts
        self.sums = self.sums + other.sums


def polygonise(strips: Iterable[Strip], row_units: NDArray[np.int64]) -> Iterator[Patches]:
    """Finished patches in batches, as strips come by.

    Args:
        strips: of a map, from top to bottom, without gaps.
        row_units: (y,) units of area of a pixel in each row of the map.
    """
    tracer = _Tracer()
    for strip in strips:
        yield from tracer.add(strip, row_units)
    yield from tracer.end()


class _Tracer:
    """What is open between two strips."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._bottom: NDArray[np.int64] | None = None
        """(x,) key of the open patch below each column of the last strip, or NO_CLASS."""
        self._keys = 0

    def add(self, strip: Strip, row_units: NDArray[np.int64]) -> Iterator[Patches]:
        """Take in a strip; gives what is finished by it."""
        ids = label_patches(strip.ranks)
        count = int(ids.max()) + 1
        ranks = first_of(ids, strip.ranks, count)
        rows = row_units[strip.window.row : strip.window.row_end]
        sums = _sums(ids, count, rows, strip.confidence)
        outlines = _outlines(ids, strip.ranks != NO_CLASS, count, strip.window.row)
        at_edge = np.zeros(count, np.bool_)
        at_edge[ids[-1]] = True
        above = self._links(ids[0], ranks)
        at_edge[above[1]] = True
        inner = np.flatnonzero(~at_edge & (ranks != NO_CLASS))
        if len(inner):
            yield Patches(np.asarray(outlines[inner], object), ranks[inner], sums[inner])
        parts = {
            int(k): _Open(int(ranks[k]), [outlines[k : k + 1]], sums[k])
            for k in np.flatnonzero(at_edge & (ranks != NO_CLASS))
        }
        closed = self._grow(parts, above, ids[-1])
        if closed:
            yield _finished(closed)

    def end(self) -> Iterator[Patches]:
        """What the last row leaves open."""
        if self._open:
            yield _finished(list(self._open.values()))

    def _links(
        self, top: NDArray[np.int32], ranks: NDArray[np.int16]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys of open patches and the patches of the new strip that go on with them."""
        if self._bottom is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        rank_of = np.full(self._keys + 1, NO_CLASS, np.int16)  # the last entry answers for NO_CLASS
        for key, patch in self._open.items():
            rank_of[key] = patch.rank
        meet = (rank_of[self._bottom] == ranks[top]) & (self._bottom != NO_CLASS)
        return unique_pairs(self._bottom[meet], top[meet])[:2]

    def _grow(
        self,
        parts: dict[int, _Open],
        above: tuple[NDArray[np.int64], NDArray[np.int64]],
        bottom: NDArray[np.int32],
    ) -> list[_Open]:
        """Join parts to what they touch, and keep open what reaches the bottom; returns the rest."""
        keys, ids = list(self._open), list(parts)
        place = {("key", k): n for n, k in enumerate(keys)} | {
            ("id", k): n for n, k in enumerate(ids, len(keys))
        }
        group = joined(
            len(place),
            np.array([place["key", k] for k in above[0].tolist()], np.int64),
            np.array([place["id", k] for k in above[1].tolist()], np.int64),
        )
        patches: dict[int, _Open] = {}
        for (kind, k), number in place.items():
            piece = self._open[k] if kind == "key" else parts[k]
            patches.setdefault(int(group[number]), _Open(piece.rank)).add(piece)
        table = np.full(int(bottom.max()) + 1, NO_CLASS, np.int64)
        for k in parts:
            if k < len(table):
                table[k] = group[place["id", k]]
        self._bottom = table[bottom]
        going_on = set(np.unique(self._bottom).tolist())
        self._open = {key: patch for key, patch in patches.items() if key in going_on}
        self._keys = len(place)
        return [patch for key, patch in patches.items() if key not in going_on]


def _sums(
    ids: NDArray[np.int32], count: int, units: NDArray[np.int64], confidence: NDArray[np.uint8] | None
) -> NDArray[np.int64]:
    """(patch, 3); as `Patches.sums`. Sums of whole numbers below 2**53 are exact in float64."""
    flat = ids.ravel()
    sums = np.zeros((count, 3), np.int64)
    if (units == units[0]).all():
        sums[:, 0] = np.bincount(flat, minlength=count) * units[0]
    else:
        weights = np.broadcast_to(units[:, None], ids.shape).ravel()
        sums[:, 0] = np.bincount(flat, weights, count).astype(np.int64)
    if confidence is not None:
        sums[:, 1] = np.bincount(flat, confidence.ravel() > 0, count).astype(np.int64)
        sums[:, 2] = np.bincount(flat, confidence.ravel(), count).astype(np.int64)
    return sums


def _outlines(ids: NDArray[np.int32], valid: NDArray[np.bool_], count: int, row: int) -> NDArray[np.object_]:
    """(patch,) polygons as GDAL draws them, moved down to their row; None for pixels without a class."""
    outlines = np.full(count, None, object)
    rings: list[list[list[tuple[float, float]]]] = []
    drawn: list[int] = []
    for shape, value in rasterio.features.shapes(ids, mask=valid, connectivity=4):
        rings.append(shape["coordinates"])
        drawn.append(int(value))
    if not drawn:
        return outlines
    points = list(chain.from_iterable(rings))
    lengths = np.fromiter(map(len, points), np.int64, len(points))
    coordinates = np.array(list(chain.from_iterable(points)), np.float64)
    coordinates[:, 1] += row
    ring_ends = np.concatenate([[0], np.cumsum(lengths)])
    polygon_ends = np.concatenate([[0], np.cumsum([len(r) for r in rings])])
    outlines[drawn] = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, coordinates, (ring_ends, polygon_ends)
    )
    return outlines


def _finished(patches: list[_Open]) -> Patches:
    return Patches(
        np.array([_united(np.concatenate(p.parts)) for p in patches], object),
        np.array([p.rank for p in patches], np.int16),
        np.stack([p.sums for p in patches]),
    )


def _united(parts: NDArray[np.object_]) -> object:
    """One polygon of parts, without the corners on straight lines that cuts leave.

    A normal ring begins at its lowest, leftmost corner, which is a true one; all others can be dropped.
    """
    if len(parts) == 1:
        return parts[0]
    return shapely.simplify(shapely.normalize(shapely.union_all(parts)), 0)
