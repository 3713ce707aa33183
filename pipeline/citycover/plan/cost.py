"""What a plan costs: bytes to read, to write and to hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from citycover.plan.layers import CHANGE, DISAGREEMENT, Layer, bytes_per_pixel
from citycover.plan.plan import Plan
from citycover.scene.scene import Scene

BESIDE = 128 << 20
"""Bytes that a run holds beside program, network and engine: the picture of the image, and what publishing
imports and encodes. Measured on scenes of 0.26 to 3.2 Mpx: 66 MiB more than a trial of the network and the
engine, 147 MiB more than what is held between sweep and publishing, 90 of them by zarr-python."""


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """Bytes that the engine holds at once beside the network: bounded by the block, not the scene."""

    strips: int
    decoded: int
    blend: int
    blocks: int

    @property
    def total(self) -> int:
        """All together."""
        return self.strips + self.decoded + self.blend + self.blocks


def memory_bound(plan: Plan, scene: Scene, channels: int, layers: Sequence[Layer]) -> MemoryBound:
    """What a sweep of this plan holds while it makes layers, in bytes."""
    width, passes = _strip_width(plan, 0), scene.passes
    strips = decoded = 0
    for group in scene.groups:
        pixel = np.dtype(group.dtype).itemsize * group.depth + 1
        rows = plan.y.window + plan.y.step
        strips += 2 * rows * width * pixel * passes // group.ratio**2
        rows_decoded = 2 if len(group.sheets) == 1 else 3  # a row of blocks is kept across sheets
        rows_decoded *= len(group.dates)
        decoded += rows_decoded * min(group.block[0], group.shape[0]) * width * pixel // group.ratio
    area = plan.scale * plan.scale
    planes = channels + (CHANGE in layers) + (DISAGREEMENT in layers)
    votes = plan.batch * plan.window_pixels * planes * 4
    blend = int(area * ((3 + (passes > 1)) * votes + plan.y.feather * width * planes * 4))
    pixel = bytes_per_pixel(layers, channels)
    # Four blocks at most: in the making, spare, waiting, being written. Beside the last lie two overviews of
    # each layer: a quarter, a sixteenth.
    blocks = plan.block_shape[0] * plan.block_shape[1] * pixel * (16 * 4 + 5) // 16
    return MemoryBound(strips, decoded, blend, blocks)


def _strip_width(plan: Plan, bx: int) -> int:
    """Input pixels from the first to the last column that the windows of a column of blocks look at."""
    first, end = plan.block(0, bx).columns
    return (end - first - 1) * plan.x.step + plan.x.window


class PlanTotals:
    """Totals of a plan that need the scene: what `citycover plan` prints."""

    def __init__(self, plan: Plan, scene: Scene, channels: int, layers: Sequence[Layer]) -> None:
        self.plan, self.scene, self.channels, self.layers = plan, scene, channels, layers

    @cached_property
    def read_bytes(self) -> int:
        """Bytes of decoded pixels to read, all dates and the overlap of block columns counted."""
        plan, total = self.plan, 0
        for bx in range(plan.block_counts[1]):
            width = min(_strip_width(plan, bx), plan.x.size)
            for group in self.scene.groups:
                if group.filled:
                    continue
                pixel = np.dtype(group.dtype).itemsize * group.depth * len(group.dates)
                total += plan.y.size * width * pixel // group.ratio**2
        return total

    @property
    def write_bytes(self) -> int:
        """Bytes of output before compression."""
        return bytes_per_pixel(self.layers, self.channels) * self.plan.shape[0] * self.plan.shape[1]

    @property
    def memory(self) -> MemoryBound:
        """What the engine holds at once."""
        return memory_bound(self.plan, self.scene, self.channels, self.layers)
