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
from typing import Any

from odc.geo.geobox import GeoBox

from citycover.geometry.window import Window
from citycover.model.form import Form
from citycover.model.precision import Precision
from citycover.plan.axis import Axis

CHUNK = 512
"""Output pixels; side of a chunk of the working store and of a product tile. Blocks are whole chunks."""


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
    precision: Precision
    form: Form = "torchscript"
    """What runs the network."""

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
            "form": self.form,
            **({"goes_on": True} if self.y.goes_on else {}),
        }

    @property
    def identity(self) -> str:
        """Hash of the plan; of what torch runs it is what it was before there were other forms."""
        facts = self.facts()
        if self.form == "torchscript":
            del facts["form"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
