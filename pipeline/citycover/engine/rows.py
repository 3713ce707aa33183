"""A strip of the image becomes rows of output: which windows are run, and in which batches.

Several dates are run one after the other in the same windows, and what the network says is averaged before
windows are blended: a pixel hears the dates on which it is valid, all alike. A window is run on those dates
on which any pixel is valid that it votes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.engine.input import SweepInput
from citycover.engine.mask import on_output, valid_in_all
from citycover.engine.open_row import ComingRow, OpenRow, Sight
from citycover.engine.strips import Strip
from citycover.engine.transfer import transfer_to
from citycover.engine.votes import Votes
from citycover.errors import MachineError, StoppedError, is_out_of_memory
from citycover.geometry.window import Window
from citycover.machine.device import on_device
from citycover.model.checks import check_scores


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """A row of windows before the network has seen it."""

    row: OpenRow
    active: list[int]
    """Columns of the windows that are run."""
    images: list[list[Tensor]]
    """Of each date the (band, y, x) strips of all band groups, on the device."""
    valids: list[NDArray[np.bool_]]
    """(y, x) of each date, input pixels of the strip."""


class RowMaker:
    """Runs the network over one row of windows after the other."""

    def __init__(self, given: SweepInput, columns: range, area: Window) -> None:
        """`columns`: of windows. `area`: output pixels that they shall give, a column of blocks."""
        self.given, self.plan, self.columns, self.area = given, given.plan, columns, area
        self.transfer = given.transfer or transfer_to(given.predictor.device, given.stages)
        self.votes = Votes(given, area)
        self.network = given.network
        self.batch = min(self.plan.batch, given.room.batch or self.plan.batch)
        self.slots = 0
        """Of the batches of the row at hand."""

    def prepare(self, index: int, strips: list[Strip]) -> PreparedRow:
        """What row of windows `index` sees, on its way to the device."""
        self._heed_stop()
        with self.given.stages.time("mask"):
            dates = self._dates(strips)
            valids = [self._valid(index, date) for date in dates]
            valid = np.logical_or.reduce(valids) if len(dates) > 1 else valids[0]
            active = [j for j in self.columns if self._votes_on(index, j, valid).any()]
            row = self._open_row(index, valid)
        images = [[self.transfer.upload(s.values).permute(2, 0, 1) for s in date] for date in dates]
        return PreparedRow(row, active, images, valids)

    def make(self, prepared: PreparedRow) -> ComingRow:
        """Rows of output that become final with a row of windows."""
        row, active = prepared.row, prepared.active
        run, self.slots = len(active), 0
        self.votes.next_row()
        while active:
            self._heed_stop()
            batch = [column for column in active if column // self.batch == active[0] // self.batch]
            if not self._run(row.index, batch, prepared.images, prepared.valids):
                self.given.room.batch = self.batch = max(1, self.batch // 2)
                continue
            with self.transfer.time("blend"), torch.inference_mode():
                for group in _neighbours(batch):
                    self.votes.put(group, group[0] % self.batch, row)
            active = active[len(batch) :]
        self.given.on_windows(run, len(self.columns) - run, self.slots)
        with self.given.stages.time("mask"), torch.inference_mode():
            return row.close()

    def _open_row(self, index: int, valid: NDArray[np.bool_]) -> OpenRow:
        """Rows that become final with row of windows `index`, still without a class."""
        (first, end), area = self.votes.final_rows(index), self.area
        final = Window(first, area.col, end - first, area.width).clip(area)
        (height, width), corner = self.votes.side, self.votes.place(index, self.columns[0], self.votes.side)
        seen = Window(corner.row, corner.col, height, width + self.votes.step[1] * (len(self.columns) - 1))
        sight = Sight(seen, on_output(valid, self._origin(index), seen, self.plan.scale))
        return OpenRow(self.given, self.transfer, index, final, area, sight)

    def _dates(self, strips: list[Strip]) -> list[list[Strip]]:
        """Strips of each date, the latest first: one a band group."""
        groups = len(self.given.card.groups)
        return [strips[first : first + groups] for first in range(0, len(strips), groups)]

    def _heed_stop(self) -> None:
        if self.given.stop.is_set():
            raise StoppedError

    def _origin(self, index: int) -> tuple[int, int]:
        """(y, x) first pixel of the strip of row `index`, in input pixels of what is mapped."""
        return self.plan.y.start(index), self.plan.x.start(self.columns[0])

    def _valid(self, index: int, strips: list[Strip]) -> NDArray[np.bool_]:
        """(y, x) of the strip, input pixels: valid in every group and inside the area of interest."""
        ratios = [group.ratio for group in self.given.card.groups]
        valid = valid_in_all([strip.valid for strip in strips], ratios)
        if self.given.area is not None:
            valid = valid & self.given.area(Window(*self._origin(index), *valid.shape))
        return valid

    def _votes_on(self, index: int, column: int, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Part of `valid` that window (index, column) votes on."""
        row, col = self._origin(index)
        rows, cols = self.plan.y.votes(index), self.plan.x.votes(column)
        return valid[rows[0] - row : rows[1] - row, cols[0] - col : cols[1] - col]

    def _run(
        self, index: int, batch: list[int], images: list[list[Tensor]], valids: list[NDArray[np.bool_]]
    ) -> bool:
        """Let a batch vote, on one date after the other; False where it does not fit into memory."""
        if len(images) == 1:
            return self._forward(batch, images[0], self.votes.take)
        self.votes.clear()
        for image, valid, shares in zip(images, valids, self._shares(index, batch, valids), strict=True):
            on_date = [column for column in batch if self._votes_on(index, column, valid).any()]
            add = partial(self.votes.add, shares=shares, index=index, columns=on_date, slots=self.batch)
            if on_date and not self._forward(on_date, image, add):
                return False
        return True

    def _shares(self, index: int, batch: list[int], valids: list[NDArray[np.bool_]]) -> Iterator[Tensor]:
        """Of each date (slot, S + f, S + f) how far it counts: one by the number of valid dates, or 0."""
        shape = (self.batch, len(valids), *self.votes.side)
        seen = np.zeros(shape, np.bool_)
        for column in batch:
            place = self.votes.place(index, column, self.votes.side)
            for date, valid in enumerate(valids):
                seen[column % self.batch, date] = on_output(
                    valid, self._origin(index), place, self.plan.scale
                )
        count = np.maximum(seen.sum(axis=1), 1).astype(np.float32)
        for date in range(len(valids)):
            share = seen[:, date] / count
            yield on_device(share, self.given.predictor.device)

    def _forward(self, batch: list[int], images: list[Tensor], take: Callable[[Tensor], None]) -> bool:
        """Hand over the scores of a batch, empty slots included; False where it does not fit into memory."""
        card, plan = self.given.card, self.plan
        try:
            with self.given.stages.time("copy"):
                windows = [
                    self._cut(batch, image, g.ratio) for image, g in zip(images, card.groups, strict=True)
                ]
            with self.transfer.time("forward"):
                scores = self.network(windows)
            own = scores[:, :-1] if self.given.telling else scores
            check_scores(own, card, self.batch, (plan.output(plan.y.window), plan.output(plan.x.window)))
            with self.transfer.time("blend"), torch.inference_mode():
                take(scores)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.batch == 1:
                raise MachineError(
                    f"a window of {plan.y.window} x {plan.x.window} px does not fit into the memory of "
                    f"{self.given.predictor.device}; give a smaller --window"
                ) from None
            return False
        self.slots += self.batch
        return True

    def _cut(self, batch: list[int], image: Tensor, ratio: int) -> Tensor:
        """(slot, band, y, x) own copy of the windows, channels_last: uint8 as it is, all else float32.

        A copy, because a network may work in place, and windows share pixels. Batches have one shape, and a
        window has its slot in it (column modulo batch) whatever its neighbours do: vectorised code rounds
        differently in different places of a tensor, and the map must not depend on how blocks are cut.
        """
        width = self.plan.x.window // ratio
        dtype = torch.uint8 if image.dtype == torch.uint8 else torch.float32
        shape = (self.batch, image.shape[0], image.shape[1], width)
        windows = torch.empty(shape, dtype=dtype, device=image.device, memory_format=torch.channels_last)
        if len(batch) < self.batch:
            windows.zero_()
        step = self.plan.x.step // ratio
        for group in _neighbours(batch):
            slot, first, more = group[0] % self.batch, group[0] - self.columns[0], len(group) - 1
            seen = image[:, :, first * step : (first + more) * step + width]
            # Told of together: a fast device would wait for being told of each window.
            windows[slot : slot + 1 + more].copy_(seen.unfold(2, width, step).permute(2, 0, 1, 3))
        return windows


def _neighbours(columns: list[int]) -> Iterator[list[int]]:
    """Columns in lists without gaps.

    >>> list(_neighbours([0, 1, 4, 5, 6]))
    [[0, 1], [4, 5, 6]]
    """
    group = columns[:1]
    for column in columns[1:]:
        if column != group[-1] + 1:
            yield group
            group = []
        group.append(column)
    if group:
        yield group
