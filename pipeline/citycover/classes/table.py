"""What the numbers in a raster mean: a table from class ids to ranks in a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend
from citycover.errors import ConfigError

NO_CLASS = -1
"""Rank of a pixel that has no class: nodata, or an id that is dropped on purpose."""

UNKNOWN = -2
"""Rank of a number that the table does not know."""

_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Ids -> ranks (places in a legend's order), for any integer ids.

    >>> from citycover.classes.legend import read_legend
    >>> table = ClassTable.onto(read_legend("base4"), {10: 2, 80: 1, 255: 0})
    >>> table.ranks_of(np.array([10, 80, 255, -7])).tolist()
    [1, 0, -1, -2]
    """

    ids: NDArray[np.int64]
    """(id,) ascending."""
    ranks: NDArray[np.int16]
    """(id,) rank of each id, or NO_CLASS."""
    title: str
    """What the table is, for messages."""

    @classmethod
    def onto(
        cls,
        legend: Legend,
        table: Mapping[int, int] | None = None,
        order: Sequence[int] | None = None,
        title: str | None = None,
    ) -> ClassTable:
        """The table onto a legend.

        Args:
            legend: where ranks count.
            table: ids to ids of the legend; what is no class there (its nodata) is dropped. None: the ids are
                the legend's own, and its nodata number.
            order: ids of the legend that have a rank, such as the channels of a network; None: all, as there.
            title: what the table is, for messages; None: what is known of it here.
        """
        if table is None:
            nodata = {legend.nodata, legend.product_nodata} - {None, *legend.ids}
            table = {id_: id_ for id_ in (*legend.ids, *nodata) if id_ is not None}
            title = title or f"legend {legend.name!r}"
        rank = {id_: k for k, id_ in enumerate(legend.ids if order is None else order)}
        ids = sorted(table)
        ranks = [rank.get(table[id_], NO_CLASS) for id_ in ids]
        title = title or f"the table onto legend {legend.name!r}"
        return cls(np.array(ids, np.int64), np.array(ranks, np.int16), title)

    def ranks_of(self, labels: NDArray[np.integer]) -> NDArray[np.int16]:
        """(...) ids -> (...) ranks, NO_CLASS or UNKNOWN."""
        dtype = labels.dtype
        if dtype.itemsize > 2 or labels.size < 2 ** (8 * dtype.itemsize):
            return self._search(labels)
        # Every number that the type can hold, looked up once: many times faster than a search per pixel.
        every = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
        return self._search(every.view(dtype))[labels.view(every.dtype)]

    def _search(self, labels: NDArray[np.integer]) -> NDArray[np.int16]:
        if labels.dtype == np.uint64:
            labels = np.minimum(labels, np.uint64(_LARGEST))  # would wrap to negative ids otherwise
        wanted = labels.astype(np.int64)
        place = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        ranks: NDArray[np.int16] = np.where(self.ids[place] == wanted, self.ranks[place], np.int16(UNKNOWN))
        return ranks


def table_between(source: Legend, to: Legend, name: str | None = None) -> dict[int, int]:
    """Ids of one legend to ids of another, its nodata included.

    Args:
        source: legend of the numbers.
        to: legend to compare in.
        name: of the remap table in `to`, where it is another than the source's (`nlcd:wet_is_water`).

    Raises:
        ConfigError: `to` has no such table, or is another legend of the same name.
    """
    alike = source.name == to.name and name in {None, source.name}
    differences = source.differences(to) if alike else ()
    if alike and not differences:
        table = {id_: id_ for id_ in source.ids}
    elif alike and source.name not in to.remap:
        raise _called_alike(source.name, differences)
    else:
        table = dict(to.table_from(name or source.name))
    for nodata in {source.nodata, source.product_nodata} - {None, *source.ids}:
        if nodata is not None:
            table.setdefault(nodata, to.product_nodata)
    return table


def common_legend(one: Legend, other: Legend) -> Legend:
    """The legend that two others can be compared in: the one that has a remap table from the other.

    Raises:
        ConfigError: neither has.
    """
    differences = one.differences(other) if one.name == other.name else ()
    if one.name == other.name and not differences:
        return one
    if other.name in one.remap:
        return one
    if one.name in other.remap:
        return other
    if one.name == other.name:
        raise _called_alike(one.name, differences)
    raise ConfigError(
        f"legends {one.name!r} and {other.name!r} have no remap table to one another; "
        "give --to LEGEND, one that has tables from both"
    )


def _called_alike(name: str, differences: Sequence[str]) -> ConfigError:
    shown = "; ".join(differences[:3]) + (
        f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    )
    return ConfigError(
        f"two legends are called {name!r}, and their classes are not the same: {shown}; give one of them a "
        "name of its own (name = in its file), and a remap table from the other"
    )
