r"""Which windows a run pushes through the network, and which blocks it stores: pure numbers, no pixel read.

Along each axis the output is cut into *cells* of S pixels, anchored to its origin. Window i looks at cell i
and at what lies around it, and votes with weights that sum to exactly one with its neighbours':

```
      -(t+f)  0                      S                        2S
 window 0  |..trim..|/rise|~~~~~~~ core ~~~~~~~|fall\|..trim..|
 window 1                 |..trim..|/rise|~~~~~~~ core ~~~~~~~|fall\|..trim..|     rise + fall = 1
 cells            0                      1                        2
```

The first window starts at -(t + f), so the first pixel lies in a core; the last one does not fall, so the
last pixel does too. A *block*, the unit of storage and of resume, is a rectangle of cells: that is why any
partition into blocks computes the same windows.

All lengths are pixels of the finest band group ("input pixels") unless they are said to be output pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.blend import rise
from citycover.card import ModelCard
from citycover.errors import PlanError
from citycover.scene import Scene
from citycover.window import Window

MAX_BLOCK_WIDTH = 8192
"""Output pixels; the width that bounds the memory of a sweep."""
MAX_BLOCK_HEIGHT = 2048
"""Output pixels; what is lost at most when a run dies, times the width."""
CHUNK = 512
"""Output pixels; side of a chunk of the working store and of a product tile. Blocks are whole chunks."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Windows along one axis."""

    size: int
    """Input pixels to cover."""
    step: int
    """S: distance of windows, side of a cell."""
    trim: int
    """t: pixels at each end of a window that never vote."""
    feather: int
    """f: pixels over which neighbours hand over; at most S, so that at most two windows vote on a pixel."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 1 or min(self.trim, self.feather) < 0 or self.feather > self.step:
            raise ValueError(f"no such axis: {self}")

    @property
    def window(self) -> int:
        """W: length of a window."""
        return self.step + 2 * self.trim + self.feather

    @property
    def halo(self) -> int:
        """How far the first window starts before the first pixel: t + f."""
        return self.trim + self.feather

    @property
    def count(self) -> int:
        """Number of windows, and of cells."""
        return math.ceil(self.size / self.step)

    def start(self, index: int) -> int:
        """First pixel of window `index`; negative for the first."""
        return index * self.step - self.halo

    def votes(self, index: int) -> tuple[int, int]:
        """First pixel that window `index` votes on, and one past the last.

        >>> Axis(size=100, step=40, trim=8, feather=4).votes(1)
        (36, 80)
        """
        last = self.size if index == self.count - 1 else (index + 1) * self.step
        return max(0, index * self.step - self.feather), last

    def weights(self, index: int) -> NDArray[np.float32]:
        """(W,) weight of each pixel of window `index`: the picture above, in numbers."""
        weights = np.ones(self.window, dtype=np.float32)
        ramp = rise(self.feather)
        weights[: self.trim] = 0
        weights[self.trim : self.halo] = ramp
        if index < self.count - 1:
            weights[self.window - self.halo : self.window - self.trim] = 1 - ramp
            weights[self.window - self.trim :] = 0
        else:
            weights[self.window - self.trim :] = 0
        return weights


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """The unit of scheduling, storage and resume."""

    index: tuple[int, int]
    """(y, x) among the blocks."""
    window: Window
    """Output pixels."""
    rows: tuple[int, int]
    """Rows of windows that vote inside: the first, and one past the last."""
    columns: tuple[int, int]
    """Columns of windows that vote inside: the first, and one past the last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that decides which windows are computed and how they are put together."""

    grid: GeoBox
    """Grid of the output."""
    origin: tuple[int, int]
    """(y, x) input pixel of the scene at which the output starts; (0, 0) unless a part is mapped."""
    y: Axis
    x: Axis
    scale: Fraction
    """Output pixels per input pixel."""
    block_shape: tuple[int, int]
    """(y, x) output pixels of a whole block; those at the far edges are cut."""
    batch: int
    """Windows that go through the network together."""
    precision: str
    """fp32, bf16 or fp16."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the output."""
        height, width = self.grid.shape
        return int(height), int(width)

    def output(self, length: int) -> int:
        """Output pixels that belong to `length` input pixels, a partly covered one counted."""
        return math.ceil(length * self.scale)

    @property
    def block_counts(self) -> tuple[int, int]:
        """(y, x) number of blocks."""
        return (
            math.ceil(self.shape[0] / self.block_shape[0]),
            math.ceil(self.shape[1] / self.block_shape[1]),
        )

    def block(self, by: int, bx: int) -> Block:
        """Block `by`, `bx`."""
        height, width = self.block_shape
        window = Window(by * height, bx * width, height, width).clip(Window(0, 0, *self.shape))
        assert window is not None, f"block {by}, {bx} lies outside {self.shape}"
        return Block(
            index=(by, bx),
            window=window,
            rows=self._voters(self.y, window.row, window.row_end),
            columns=self._voters(self.x, window.col, window.col_end),
        )

    def _voters(self, axis: Axis, first: int, end: int) -> tuple[int, int]:
        """Windows that vote on output pixels `first` to `end`: the first, and one past the last."""
        step, feather = self.output(axis.step), self.output(axis.feather)
        return first // step, min((end - 1 + feather) // step, axis.count - 1) + 1

    def blocks(self) -> Iterator[Block]:
        """Column after column of blocks, each from top to bottom: the order in which open rows carry over."""
        for bx in range(self.block_counts[1]):
            for by in range(self.block_counts[0]):
                yield self.block(by, bx)

    @property
    def windows(self) -> int:
        """Windows of a run in one process, skipped ones counted."""
        columns = [self.block(0, bx).columns for bx in range(self.block_counts[1])]
        return self.y.count * sum(end - first for first, end in columns)

    @property
    def window_pixels(self) -> int:
        """Input pixels of one window."""
        return self.y.window * self.x.window

    @property
    def redundancy(self) -> float:
        """Pixels pushed through the network / pixels of output, in input pixels."""
        return self.windows * self.window_pixels / (self.y.size * self.x.size)

    def facts(self) -> dict[str, Any]:
        """What identifies the plan, as plain values; also what `run.json` shows of it."""
        return {
            "shape": list(self.shape),
            "transform": list(self.grid.transform)[:6],
            "origin": list(self.origin),
            "input_shape": [self.y.size, self.x.size],
            "window": [self.y.window, self.x.window],
            "step": [self.y.step, self.x.step],
            "trim": self.y.trim,
            "feather": self.y.feather,
            "scale": str(self.scale),
            "block_shape": list(self.block_shape),
            "blocks": list(self.block_counts),
            "windows": self.windows,
            "redundancy": round(self.redundancy, 4),
            "batch": self.batch,
            "precision": self.precision,
        }

    @property
    def identity(self) -> str:
        """Hash of the plan."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user fixed; None leaves the choice to the planner."""

    window: int | None = None
    trim: int | None = None
    feather: int | None = None
    batch: int | None = None
    block: tuple[int, int] | None = None
    """(y, x) most output pixels of a block; multiples of CHUNK where blocks are stored."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the axes of a plan must obey."""

    largest: int
    """Longest window wanted."""
    fixed: bool
    multiple: int
    step_multiple: int
    trim: int
    feather: int

    @property
    def margins(self) -> int:
        return 2 * self.trim + self.feather

    def steps(self) -> range:
        """Steps that the card allows, in rising order, up to the longest window."""
        first = _round_up(max(self.feather, 1), self.step_multiple)
        return range(first, self.largest - self.margins + 1, self.step_multiple)

    def fit(self, size: int) -> int:
        """The step with the fewest pixels to compute: the windows that the longest one needs, made equal."""
        allowed = [s for s in self.steps() if (s + self.margins) % self.multiple == 0]
        if self.fixed:
            allowed = [s for s in allowed if s + self.margins == self.largest]
        if not allowed:
            raise PlanError(self._no_window())
        count = math.ceil(size / allowed[-1])
        return next(s for s in allowed if s * count >= size)

    def _no_window(self) -> str:
        return (
            f"window {self.largest} with trim {self.trim} and feather {self.feather} leaves no step that "
            f"is a multiple of {self.step_multiple} and at least the feather; a window is a multiple of "
            f"{self.multiple}; give a larger --window or a smaller --trim or --feather"
        )


def make_plan(
    scene: Scene, card: ModelCard, options: PlanOptions | None = None, part: Window | None = None
) -> Plan:
    """Fit windows and blocks to a scene.

    Args:
        scene: its shapes are used, no pixel is read.
        card: window rule, stride, trim, feather, output scale.
        options: what the user fixed.
        part: input pixels to map; None for all. It is grown outward to whole pixels of every band group.

    Raises:
        PlanError: window, trim or feather contradict each other or the card.
    """
    options = options or PlanOptions()
    rule = _rule(card, options)
    unit = math.lcm(*(group.ratio for group in card.groups), card.output_scale.denominator)
    area = _snap(part, unit, scene.shape) if part else Window(0, 0, *scene.shape)
    y = Axis(area.height, rule.fit(area.height), rule.trim, rule.feather)
    x = Axis(area.width, rule.fit(area.width), rule.trim, rule.feather)
    grid = _output_grid(scene.grid, area, card.output_scale)
    limits = options.block or (MAX_BLOCK_HEIGHT, MAX_BLOCK_WIDTH)
    return Plan(
        grid=grid,
        origin=(area.row, area.col),
        y=y,
        x=x,
        scale=card.output_scale,
        block_shape=(_block_side(grid.shape[0], limits[0]), _block_side(grid.shape[1], limits[1])),
        batch=options.batch or 1,
        precision="fp32",
    )


def _rule(card: ModelCard, options: PlanOptions) -> _Rule:
    """Combine card and options; refuse what breaks the card, with the nearest that fits."""
    trim = card.trim if options.trim is None else options.trim
    feather = card.feather if options.feather is None else options.feather
    unit = math.lcm(card.stride, *(g.ratio for g in card.groups), card.output_scale.denominator)
    apart = math.lcm(card.output_scale.denominator, *(g.ratio for g in card.groups))
    if (trim + feather) % unit or trim % apart:
        near = max(unit, unit * round((trim + feather) / unit))
        fits = min(feather // apart * apart, near)
        raise PlanError(
            f"trim {trim} + feather {feather} = {trim + feather} is not a multiple of {unit}, the stride of "
            f"model {card.name!r}; the nearest that fits is --trim {near - fits} --feather {fits}"
        )
    size = options.window or card.window.size
    if card.window.fixed and size != card.window.size:
        raise PlanError(f"model {card.name!r} takes windows of {card.window.size} only, got --window {size}")
    if size % card.window.multiple or size > card.window.maximum:
        near = min(
            _round_up(size, card.window.multiple),
            card.window.maximum // card.window.multiple * card.window.multiple,
        )
        raise PlanError(
            f"model {card.name!r} takes windows that are multiples of {card.window.multiple} up to "
            f"{card.window.maximum}, got --window {size}; the nearest that fits is {near}"
        )
    step_unit = math.lcm(unit, card.output_scale.denominator)
    return _Rule(size, card.window.fixed, card.window.multiple, step_unit, trim, feather)


def _block_side(size: int, most: int) -> int:
    """Side of equal blocks of whole chunks, at most `most` long."""
    return min(most, _round_up(math.ceil(size / math.ceil(size / most)), CHUNK))


def _output_grid(grid: GeoBox, area: Window, scale: Fraction) -> GeoBox:
    """Grid of the output: same origin as the mapped area, pixels 1 / scale as large."""
    height, width = (math.ceil(n * scale) for n in (area.height, area.width))
    transform = grid.transform * grid.transform.translation(area.col, area.row)
    if scale != 1:
        transform = transform * grid.transform.scale(float(1 / scale))
    return GeoBox((height, width), transform, grid.crs)


def _snap(part: Window, unit: int, shape: tuple[int, int]) -> Window:
    """Grow a part outward to whole units and clip it to the scene."""
    row, col = part.row // unit * unit, part.col // unit * unit
    row_end, col_end = _round_up(part.row_end, unit), _round_up(part.col_end, unit)
    area = Window(row, col, row_end - row, col_end - col).clip(Window(0, 0, *shape))
    if area is None:
        raise PlanError("the part to map does not overlap the scene; check --bbox or --aoi and their CRS")
    return area


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


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


def memory_bound(plan: Plan, scene: Scene, channels: int) -> MemoryBound:
    """What a sweep of this plan holds, in bytes."""
    width = _strip_width(plan, 0)
    strips = decoded = 0
    for group in scene.groups:
        pixel = np.dtype(group.dtype).itemsize * len(group.bands) + 1
        rows = plan.y.window + plan.y.step
        strips += 2 * rows * width * pixel // group.ratio**2
        decoded += 2 * min(group.block[0], group.shape[0]) * width * pixel // group.ratio
    area = plan.scale * plan.scale
    tile = plan.batch * plan.window_pixels * channels * 4
    blend = int(area * (3 * tile + plan.y.feather * width * channels * 4))
    blocks = 4 * plan.block_shape[0] * plan.block_shape[1] * 2
    return MemoryBound(strips, decoded, blend, blocks)


def _strip_width(plan: Plan, bx: int) -> int:
    """Input pixels from the first to the last column that the windows of a column of blocks look at."""
    first, end = plan.block(0, bx).columns
    return (end - first - 1) * plan.x.step + plan.x.window


class PlanTotals:
    """Totals of a plan that need the scene: what `citycover plan` prints."""

    def __init__(self, plan: Plan, scene: Scene, channels: int) -> None:
        self.plan, self.scene, self.channels = plan, scene, channels

    @cached_property
    def read_bytes(self) -> int:
        """Bytes of decoded pixels to read, the overlap of block columns counted."""
        plan, total = self.plan, 0
        for bx in range(plan.block_counts[1]):
            width = min(_strip_width(plan, bx), plan.x.size)
            for group in self.scene.groups:
                pixel = np.dtype(group.dtype).itemsize * len(group.bands)
                total += plan.y.size * width * pixel // group.ratio**2
        return total

    @property
    def write_bytes(self) -> int:
        """Bytes of output before compression: classes and confidence."""
        return 2 * self.plan.shape[0] * self.plan.shape[1]

    @property
    def memory(self) -> MemoryBound:
        """What the engine holds at once."""
        return memory_bound(self.plan, self.scene, self.channels)
