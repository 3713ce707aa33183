"""SamplePlan: which chips of which images are learned from, and which are held out. A value; seeded.

The labels of every image are counted once, on a grid of cells some ten pixels wide. A chip is drawn by
drawing a cell (any labelled one, or one of a class drawn before), and then a place for a chip that holds it.
Squares of each image are held out for validation; no training chip touches one, of whatever image.

    +----+----+----+----+
    |    |    |####|    |     #  held out: validation chips tile it
    |  +------+####|    |     o  the cell drawn; the chip is any square around it that touches no #
    |  |   o  |----+----+
    |  +------+    |    |
    +----+----+----+----+

Chip i of an epoch depends on (seed, epoch, i) alone: any worker finds it, and a resumed run goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from citycover.errors import ConfigError
from citycover.geometry.overlap import find_overlaps
from citycover.geometry.window import Window
from citycover_models.data.cells import CELLS, Cells, count_cells, held_elsewhere, hold_out, taken_blocks
from citycover_models.data.pairs import Pair

Balance = Literal["uniform", "classes", "rare"]
"""Draw any labelled pixel; or each class as often; or the rarest nearly always (`rare_class_odds`)."""

_PLACES = 32
"""Places tried for a chip before another cell is drawn."""

BEYOND = 1 << 20
"""An epoch that no training reaches: its chips are drawn by other numbers."""

_VALIDATION_CHIPS = 64


@dataclass(frozen=True, slots=True)
class Chip:
    """A square of one image."""

    pair: int
    window: Window
    """May reach beyond an image that is smaller than a chip."""
    side: int = 0
    """Pixels to which its sides are brought; 0: it is read as it is."""
    wanted: int = -1
    """Rank of the class for whose sake it was drawn; -1: for none."""


@dataclass(frozen=True)
class SamplePlan:
    """Everything that decides which pixels are learned from."""

    cells: tuple[Cells, ...]
    """One for each pair."""
    chip: int
    """Side in pixels."""
    chips_per_epoch: int
    balance: Balance
    seed: int
    scales: tuple[float, ...] = (1.0,)
    """Enlargements, one of which is drawn for each chip: enlarged by s, it covers chip / s pixels."""
    temperature: float = 0.01
    """Of balance `rare`; see `rare_class_odds`."""
    held_scale: float = 1.0
    """Enlargement of held-out chips: the one at which images are seen, without what is drawn beside it."""

    @cached_property
    def label_counts(self) -> NDArray[np.float64]:
        """(class,) samples of each class over all images."""
        counts: NDArray[np.float64] = sum(
            (c.counts.sum((0, 1), np.float64) for c in self.cells), start=np.zeros(1)
        )
        return counts

    @cached_property
    def _cumulative(self) -> NDArray[np.float64]:
        """(class or 1, cell of all images): running sums to draw cells from."""
        flat = np.concatenate([c.counts.reshape(-1, c.counts.shape[2]) for c in self.cells]).T
        weights = flat.sum(0, keepdims=True) if self.balance == "uniform" else flat
        weights = weights[weights.sum(1) > 0].astype(np.float64)
        running: NDArray[np.float64] = weights.cumsum(1) / weights.sum(1, keepdims=True)
        return running

    @cached_property
    def _odds(self) -> NDArray[np.float64]:
        """(class that occurs,) running sums to draw classes from."""
        odds = rare_class_odds(self.label_counts, self.temperature)
        return odds[self.label_counts > 0].cumsum()

    def _draw_row(self, rng: np.random.Generator) -> tuple[int, int]:
        """A row of the running sums, and the rank of the class that was drawn for its own sake, or -1."""
        if self.balance != "rare":
            return int(rng.integers(len(self._cumulative))), -1
        row = min(int(np.searchsorted(self._odds, rng.random(), side="right")), len(self._odds) - 1)
        return row, int(np.flatnonzero(self.label_counts > 0)[row])

    @cached_property
    def _first_cells(self) -> NDArray[np.int64]:
        """Number of the first cell of each image."""
        sizes = [c.counts.shape[0] * c.counts.shape[1] for c in self.cells]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def draw(self, epoch: int, index: int, attempt: int = 0) -> Chip:
        """Chip `index` of an epoch; another `attempt` where the first turned out to hold nothing.

        Raises:
            ConfigError: there is no room for a chip beside the blocks that are held out.
        """
        rng = np.random.default_rng([self.seed, epoch, index, attempt])
        scale = self.scales[rng.integers(len(self.scales))] if len(self.scales) > 1 else self.scales[0]
        side = _covered(self.chip, scale)
        for _ in range(_PLACES):
            number, wanted = self._draw_row(rng)
            row = self._cumulative[number]
            cell = min(int(np.searchsorted(row, rng.random(), side="right")), len(row) - 1)
            pair = int(np.searchsorted(self._first_cells, cell, side="right")) - 1
            found = self._place(rng, pair, cell - int(self._first_cells[pair]), side)
            if found:
                return Chip(pair, found, self.chip, wanted)
        raise ConfigError(
            f"no chip of {self.chip} px fits beside the blocks that are held out; take smaller chips, or "
            "--set validation=0"
        )

    def _place(self, rng: np.random.Generator, pair: int, cell: int, side: int) -> Window | None:
        cells = self.cells[pair]
        row, col = (int(n) * cells.side for n in divmod(cell, cells.counts.shape[1]))
        for _ in range(_PLACES):
            top, left = (
                _start(rng, at, cells.side, side, size)
                for at, size in zip((row, col), cells.shape, strict=True)
            )
            window = Window(top, left, side, side)
            if not cells.touches_held_out(window):
                return window
        return None

    def epoch(self, number: int) -> Iterator[Chip]:
        """All chips of an epoch, as first drawn."""
        return (self.draw(number, index) for index in range(self.chips_per_epoch))

    @cached_property
    def validation(self) -> tuple[Chip, ...]:
        """Some of the held-out chips, the same in every epoch."""
        order = np.random.default_rng([self.seed, BEYOND]).permutation(len(self.held_out))
        return tuple(self.held_out[i] for i in sorted(order[:_VALIDATION_CHIPS].tolist()))

    @cached_property
    def held_out(self) -> tuple[Chip, ...]:
        """Chips that tile the held-out blocks, image by image."""
        side = _covered(self.chip, self.held_scale)
        return tuple(
            Chip(pair, Window(row, col, side, side), self.chip)
            for pair, cells in enumerate(self.cells)
            for block_row, block_col in np.argwhere(cells.held_out).tolist()
            for row in range(block_row * cells.block, (block_row + 1) * cells.block, side)
            for col in range(block_col * cells.block, (block_col + 1) * cells.block, side)
            if row < cells.shape[0] and col < cells.shape[1]
        )

    def describe(self) -> dict[str, Any]:
        """The plan as plain values."""
        counts = self.label_counts
        return {
            "images": len(self.cells),
            "pixels": sum(c.shape[0] * c.shape[1] for c in self.cells),
            "chip": self.chip,
            "chips_per_epoch": self.chips_per_epoch,
            "balance": self.balance,
            "seed": self.seed,
            "label_shares": (counts / counts.sum()).round(4).tolist(),
            "validation_chips": len(self.validation),
            "held_out_blocks": int(sum(c.held_out.sum() for c in self.cells)),
        }


def _covered(chip: int, scale: float) -> int:
    """Pixels along the side of what a chip shows that was enlarged."""
    return max(1, round(chip / scale))


def rare_class_odds(counts: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Rare-class sampling of DAFormer (section 3.3): P(c) = softmax((1 - f_c) / T), f_c the share of class c.

    At T = 0.01 a class that covers 5 % less is drawn e^5 times as often. Classes without labels are left out.

    >>> rare_class_odds(np.array([90.0, 10.0, 0.0]), 1.0).round(4).tolist()
    [0.31, 0.69, 0.0]
    """
    rarity = np.where(counts > 0, 1 - counts / counts.sum(), -np.inf) / temperature
    odds: NDArray[np.float64] = np.exp(rarity - rarity.max())
    return odds / odds.sum()


def _start(rng: np.random.Generator, cell: int, side: int, chip: int, size: int) -> int:
    """Where a chip begins that holds a cell, lies in it, or holds as much of it as the image allows."""
    first, last = sorted((min(cell + side, size) - chip, cell))
    low, high = (max(0, min(at, size - chip)) for at in (first, last))
    return int(rng.integers(low, high + 1))


def plan_samples(
    pairs: Sequence[Pair],
    num_classes: int,
    *,
    chip: int,
    chips_per_epoch: int,
    balance: Balance,
    validation: float,
    seed: int,
    scales: tuple[float, ...] = (1.0,),
    temperature: float = 0.01,
    held_scale: float = 1.0,
) -> SamplePlan:
    """Count the labels of all pairs and choose what is held out.

    Args:
        pairs: what there is to learn from.
        num_classes: K.
        chip: side in pixels.
        chips_per_epoch: chips drawn in an epoch.
        balance: draw labelled pixels, or classes first.
        validation: share of blocks that are held out, 0 for none.
        seed: another seed, other chips.
        scales: enlargements to draw from.
        temperature: of balance `rare`.
        held_scale: enlargement of held-out chips; blocks are two of them wide.

    Raises:
        ConfigError: no pixel has a label.
    """
    cells: list[Cells] = []
    side = _covered(chip, held_scale)
    overlaps = find_overlaps([pair.scene.grid for pair in pairs])
    for number, pair in enumerate(pairs):
        counted = count_cells(pair, num_classes, side, CELLS // len(pairs))
        earlier = [other for other in overlaps[number] if other < number]
        elsewhere = held_elsewhere(pairs, cells, number, earlier)
        rng = np.random.default_rng([seed, number])
        held_out = hold_out(counted, taken_blocks(counted, elsewhere), validation, rng)
        cells.append(replace(counted, held_out=held_out, elsewhere=elsewhere))
    for number, counted in enumerate(cells):
        later = [other for other in overlaps[number] if other > number]
        more = held_elsewhere(pairs, cells, number, later)
        cells[number] = replace(counted, elsewhere=counted.elsewhere + more)
    plan = SamplePlan(tuple(cells), chip, chips_per_epoch, balance, seed, scales, temperature, held_scale)
    if not plan.label_counts.sum() > 0:
        raise ConfigError("no pixel of the images has a label that means a class; nothing can be learned")
    return plan
