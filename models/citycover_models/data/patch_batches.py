"""Batches of patches for the loop, the same for any number of processes; statistics of their bands."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.classes.legend import Legend, read_legend
from citycover.classes.table import ClassTable, table_between
from citycover.errors import ConfigError
from citycover_models.data.augment import Augment
from citycover_models.data.batches import Drawn, Steps, decoded
from citycover_models.data.patches import GROUPS, Patch, hot_labels, ranks_of_codes
from citycover_models.data.shards import PatchReader
from citycover_models.imagery.sentinel2 import BandStatistics

logger = logging.getLogger(__name__)

_MEASURED = 2000
"""Patches over which means and deviations are taken, at most."""

_OFFSET = 900
"""Bands that are nowhere below this carry the offset of processing baseline 04.00."""


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches that are learned from together."""

    groups: tuple[Tensor, Tensor, Tensor]
    """(n, 4, 120, 120), (n, 6, 60, 60), (n, 2, 20, 20) float32 raw digital numbers."""
    labels: Tensor
    """(n, k) float32, 1 where a patch has a label."""
    reference: Tensor | None = None
    """(n, 120, 120) int64 ranks of classes, IGNORE where there is none; None: labels alone are learned."""

    @property
    def pixels(self) -> int:
        """Of 10 m."""
        return self.groups[0][:, 0].numel()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Groups and labels."""
        named = dict(zip(("b10", "b20", "b60"), self.groups, strict=True)) | {"labels": self.labels}
        return named if self.reference is None else named | {"reference": self.reference}

    def to(self, device: torch.device) -> Self:
        """The same patches on a device."""
        b10, b20, b60 = (group.to(device, non_blocking=True) for group in self.groups)
        reference = None if self.reference is None else self.reference.to(device, non_blocking=True)
        labels = self.labels.to(device, non_blocking=True)
        return replace(self, groups=(b10, b20, b60), labels=labels, reference=reference)

    def varied(self, how: Augment, statistics: BandStatistics, generator: torch.Generator) -> PatchBatch:
        """Every patch turned and lit on its own, alike in all groups."""
        known = [statistics.of(bands) for bands in GROUPS]
        (b10, b20, b60), maps = how.vary_groups(self.groups, self.reference, known, generator)
        return replace(self, groups=(b10, b20, b60), reference=maps)


class _Patches(Drawn):
    """(epoch, index) -> one patch, in an order of the epoch's own."""

    def __init__(self, source: PatchSource) -> None:
        self._source = source
        self._hot = hot_labels(source.patches, len(source.legend.ids)).astype(np.float32)
        self._table = _from_corine(source.legend) if source.references else None
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def draw(self, epoch: int, index: int) -> tuple[Tensor, ...]:
        """A patch by its place in an epoch."""
        if self._order[0] != epoch:
            rng = np.random.default_rng([self._source.seed, epoch])
            self._order = epoch, rng.permutation(len(self._hot))
        return self.patch(int(self._order[1][index % len(self._hot)]))

    def patch(self, number: int) -> tuple[Tensor, ...]:
        """Groups, labels and, where they are learned from, classes of pixels."""
        reader = self._source.reader
        groups = (torch.from_numpy(group.astype(np.float32)) for group in reader.read(number))
        labels = torch.from_numpy(self._hot[number])
        if self._table is None:
            return (*groups, labels)
        name = self._source.patches[number].name
        ranks = ranks_of_codes(reader.read_codes(number), self._table, name)
        return (*groups, labels, torch.from_numpy(ranks))


@dataclass(frozen=True, slots=True)
class PatchSource:
    """Patches of one role, ready to be read."""

    patches: tuple[Patch, ...]
    legend: Legend
    reader: PatchReader
    references: bool
    """Whether classes of pixels are read too."""
    seed: int

    def steps(
        self, per_epoch: int, batch: int, first: int, last: int, *, workers: int, rank: int, world: int
    ) -> Iterator[PatchBatch]:
        """Batches of the steps `first` to `last`, see `training_batches`."""
        steps = Steps(per_epoch, batch, first, last, rank, world)
        for columns in decoded(_Patches(self), steps, workers):
            yield _batch(columns)

    def once(self, batch: int) -> Iterator[PatchBatch]:
        """Every patch, in order."""
        dataset = _Patches(self)
        for first in range(0, len(self.patches), batch):
            items = [dataset.patch(i) for i in range(first, min(first + batch, len(self.patches)))]
            yield _batch([torch.stack(column) for column in zip(*items, strict=True)])


def _from_corine(legend: Legend) -> ClassTable:
    return ClassTable.onto(legend, table_between(read_legend("corine"), legend))


def _batch(columns: Sequence[Tensor]) -> PatchBatch:
    b10, b20, b60, labels, *more = columns
    return PatchBatch((b10, b20, b60), labels, more[0].long() if more else None)


def measure_bands(source: PatchSource) -> BandStatistics:
    """Mean and deviation of each band over the patches, or some of them, evenly drawn.

    Raises:
        ConfigError: the numbers are no digital numbers of Level 2A.
    """
    names = [band for group in GROUPS for band in group]
    sums, squares, counts = (np.zeros(len(names)) for _ in range(3))
    least = np.full(len(names), np.inf)
    for number in range(0, len(source.patches), -(-len(source.patches) // _MEASURED)):
        planes = [plane.astype(np.float64) for group in source.reader.read(number) for plane in group]
        sums += [plane.sum() for plane in planes]
        squares += [(plane**2).sum() for plane in planes]
        counts += [plane.size for plane in planes]
        least = np.minimum(least, [plane.min() for plane in planes])
    means = sums / counts
    stds = np.sqrt(np.maximum(squares / counts - means**2, 0))
    _check_units(means, least)
    return BandStatistics(
        dict(zip(names, means.round(3).tolist(), strict=True)),
        dict(zip(names, np.maximum(stds.round(3), 1e-3).tolist(), strict=True)),
    )


def _check_units(means: NDArray[Any], least: NDArray[Any]) -> None:
    if means.max() < 10:
        raise ConfigError(
            f"the largest mean of a band is {means.max():.3g}; needed are digital numbers of Level 2A "
            "(reflectance x 10000), of which land has hundreds to thousands; give the data as published"
        )
    if (least >= _OFFSET).all():
        logger.warning(
            "no band is below %.0f anywhere: these patches carry the offset of processing baseline 04.00 or "
            "later, and the trained network will expect it; BigEarthNet as published has none",
            least.min(),
        )
