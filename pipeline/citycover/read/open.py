"""Opens the readers of a scene; small enough to be sent to a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from citycover.read.raster import RasterReader
from citycover.read.reader import Reader
from citycover.scene.scene import Scene


def open_readers(scene: Scene, threads: int | None) -> Callable[[], Sequence[Reader]]:
    """Opens a reader for each band group; small enough to be sent to a worker.

    Where a network is to see dates one after the other: one for each group on each date, the latest first.
    """
    return partial(_open_all, scene, threads or 1)


def _open_all(scene: Scene, threads: int) -> list[RasterReader]:
    groups = scene.groups
    if scene.passes > 1:
        groups = tuple(g for date in zip(*(group.dates for group in groups), strict=True) for g in date)
    return [RasterReader(group, scene.resampling, threads=threads) for group in groups]
