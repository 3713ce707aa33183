"""Opens the readers of a scene; small enough to be sent to a worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from citycover.machine.cores import threads_here
from citycover.read.fill import FillReader
from citycover.read.raster import RasterReader
from citycover.read.reader import Reader
from citycover.scene.scene import Scene, SceneGroup


def open_readers(scene: Scene, threads: int | None) -> Callable[[], Sequence[Reader]]:
    """Opens a reader for each band group; small enough to be sent to a worker.

    Where a network is to see dates one after the other: one for each group on each date, the latest first.

    Args:
        scene: what is read.
        threads: that read; None: one for each core of the process that opens them.
    """
    return partial(_open_all, scene, threads)


def _open_all(scene: Scene, threads: int | None) -> list[Reader]:
    groups, threads = scene.groups, threads or threads_here()
    if scene.passes > 1:
        dates = [group.dates * (scene.passes if group.filled else 1) for group in groups]
        groups = tuple(group for date in zip(*dates, strict=True) for group in date)
    return [_reader(group, scene.resampling, threads) for group in groups]


def _reader(group: SceneGroup, resampling: str | None, threads: int) -> Reader:
    if group.filled:
        return FillReader(group.shape, np.dtype(group.dtype), group.filled)
    return RasterReader(group, resampling, threads=threads)
