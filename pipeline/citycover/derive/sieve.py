"""A minimum mapping unit: patches that are too small go to a neighbour.

A patch below the limit takes the class of that neighbour, among those larger than itself, with which it
shares the longest border; of equals, of the largest, then of the first from the top. Patches that have become
one are taken together, and the rule is applied again until nothing below the limit has a neighbour. A small
patch among nodata alone stays.

It is decided on patches, not on pixels: a first pass over the map collects patches and the borders between
them, and what it finds does not depend on how the map was cut into strips. Memory grows with the number of
patches (some 450 bytes each at most), not with that of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from citycover.classes.table import NO_CLASS
from citycover.derive.patches import first_of, joined, label_patches, unique_pairs
from citycover.derive.source import Strip


@dataclass(frozen=True)
class PatchGraph:
    """Patches of a map and the borders between them."""

    ranks: NDArray[np.int16]
    """(patch,)"""
    units: NDArray[np.int64]
    """(patch,) area."""
    pairs: NDArray[np.int64]
    """(border, 2) patches on both sides, the lower number first; each pair once, both with a class."""
    lengths: NDArray[np.int64]
    """(border,)"""

    def merged(self, group: NDArray[np.int64], ranks: NDArray[np.int16]) -> PatchGraph:
        """The graph of groups of patches: (patch,) group of each, numbered in the order of first members."""
        count = len(ranks)
        units = np.zeros(count, np.int64)
        np.add.at(units, group, self.units)
        pairs, lengths = _summed(group[self.pairs], self.lengths)
        return PatchGraph(ranks, units, pairs, lengths)


def sieved_strips(
    strips: Callable[[bool], Iterable[Strip]], units: NDArray[np.int64], sides: tuple[int, int], least: int
) -> Generator[Strip]:
    """A map without patches below `least` units of area, in the strips that it came in.

    Args:
        strips: gives the map, from top to bottom; called twice, first without confidence (False).
        units: (y,) units of area of a pixel in each row.
        sides: length of a pixel's vertical and horizontal side, in any one unit.
        least: units of the smallest patch that stays.
    """
    ranks, offset = survey(strips(False), units, sides).sieved(least), 0
    for strip in strips(True):
        ids = label_patches(strip.ranks)
        yield replace(strip, ranks=ranks[ids + np.int64(offset)])
        offset += int(ids.max()) + 1


def sieve_ranks(graph: PatchGraph, least: int) -> NDArray[np.int16]:
    """(patch,) class of each patch once those of fewer than `least` units have gone."""
    belongs = np.arange(len(graph.ranks))
    while True:
        toward = _neighbours(graph, least)
        if (toward == np.arange(len(toward))).all():
            return graph.ranks[belongs]
        while (toward[toward] != toward).any():  # along a chain to its end
            toward = toward[toward]
        ranks = graph.ranks[toward]
        one, other = graph.pairs.T
        same = ranks[one] == ranks[other]
        links = np.concatenate([one[same], np.arange(len(toward))])
        group = joined(len(toward), links, np.concatenate([other[same], toward]))
        group = _in_order(group)
        first = np.unique(group, return_index=True)[1]
        graph = graph.merged(group, ranks[first])
        belongs = group[belongs]


def _neighbours(graph: PatchGraph, least: int) -> NDArray[np.int64]:
    """(patch,) where each one goes; itself where it stays."""
    toward = np.arange(len(graph.ranks))
    ends = np.concatenate([graph.pairs, graph.pairs[:, ::-1]])
    lengths = np.concatenate([graph.lengths, graph.lengths])
    own, other = ends.T
    size = graph.units
    larger = (size[other] > size[own]) | ((size[other] == size[own]) & (other < own))
    wanted = larger & (size[own] < least)
    own, other, lengths = own[wanted], other[wanted], lengths[wanted]
    order = np.lexsort((-other, size[other], lengths, own))  # the last one of each patch is the best
    own, other = own[order], other[order]
    last = np.append(own[1:] != own[:-1], True) if len(own) else np.zeros(0, np.bool_)
    toward[own[last]] = other[last]
    return toward


def _in_order(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same groups, numbered in the order in which they first occur."""
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    ordered: NDArray[np.int64] = number[inverse]
    return ordered


@dataclass(frozen=True)
class Survey:
    """All patches of a map, found strip by strip."""

    graph: PatchGraph
    number: NDArray[np.int64]
    """(part,) patch that each strip's part belongs to; parts are counted on from strip to strip."""

    def sieved(self, least: int) -> NDArray[np.int16]:
        """(part,) class of each part afterwards."""
        return sieve_ranks(self.graph, least)[self.number]


def survey(strips: Iterable[Strip], units: NDArray[np.int64], sides: tuple[int, int]) -> Survey:
    """Collect patches and borders.

    Args:
        strips: of a map, from top to bottom, without gaps.
        units: (y,) units of area of a pixel in each row.
        sides: length of a pixel's vertical and horizontal side, in any one unit.
    """
    ranks, areas, borders, lengths, seams = [], [], [], [], []
    offset, above = 0, None
    for strip in strips:
        ids = label_patches(strip.ranks).astype(np.int64) + offset
        count = int(ids.max()) + 1 - offset
        rows = units[strip.window.row : strip.window.row_end]
        ranks.append(first_of(ids - offset, strip.ranks, count))
        weights = np.broadcast_to(rows[:, None], ids.shape).ravel()
        areas.append(np.bincount((ids - offset).ravel(), weights, count).astype(np.int64))
        across = _borders(ids[:, :-1], ids[:, 1:], strip.ranks[:, :-1], strip.ranks[:, 1:], sides[0])
        over = ids if above is None else np.concatenate([above[0][None], ids])
        known = strip.ranks if above is None else np.concatenate([above[1][None], strip.ranks])
        down = _borders(over[:-1], over[1:], known[:-1], known[1:], sides[1])
        for pairs, length in (across, down):
            borders.append(pairs)
            lengths.append(length)
        if above is not None:
            meet = (above[1] == strip.ranks[0]) & (above[1] != NO_CLASS)
            seams.append(np.stack([above[0][meet], ids[0][meet]], -1))
        above, offset = (ids[-1], strip.ranks[-1]), offset + count
    seam = np.concatenate([np.zeros((0, 2), np.int64), *seams])
    number = _in_order(joined(offset, seam[:, 0], seam[:, 1]))
    every = np.concatenate(ranks)
    pairs = np.concatenate(borders)
    parts = PatchGraph(every, np.concatenate(areas), pairs, np.concatenate(lengths))
    first = np.unique(number, return_index=True)[1]
    return Survey(parts.merged(number, every[first]), number)


def _borders(
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    rank: NDArray[np.int16],
    other_rank: NDArray[np.int16],
    side: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of patches beside each other, and how long they are so; arrays are (y, x) neighbours."""
    meet = (rank != other_rank) & (rank != NO_CLASS) & (other_rank != NO_CLASS)
    first, second, counts = unique_pairs(one[meet], other[meet])
    return _summed(np.stack([first, second], -1), counts * side)


def _summed(
    pairs: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each border once, whichever way it was met; of a patch with itself, none."""
    apart = pairs[:, 0] != pairs[:, 1]
    low, high = pairs[apart].min(1, initial=np.iinfo(np.int64).max), pairs[apart].max(1, initial=0)
    side = int(high.max(initial=0)) + 1
    keys, place = np.unique(low * side + high, return_inverse=True)
    total = np.zeros(len(keys), np.int64)
    np.add.at(total, place, lengths[apart])
    return np.stack([keys // side, keys % side], -1), total
