"""A strip of the image becomes rows of output: which windows are run, and in which batches.

Several dates are run one after the other in the same windows, and what the network says is averaged before
windows are blended: a pixel hears the dates on which it is valid, all alike. A window is run on those dates
on which any pixel is valid that it votes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.engine.canvas import Piece
from citycover.engine.input import SweepInput
from citycover.engine.mask import on_output, valid_in_all
from citycover.engine.strips import Strip
from citycover.engine.votes import Votes
from citycover.errors import MachineError, StoppedError, is_out_of_memory
from citycover.geometry.window import Window
from citycover.model.checks import check_scores


class RowMaker:
    """Runs the network over one row of windows after the other."""

    def __init__(self, given: SweepInput, columns: range, area: Window) -> None:
        """`columns`: of windows. `area`: output pixels that they shall give, a column of blocks."""
        self.given, self.plan, self.columns, self.area = given, given.plan, columns, area
        self.votes = Votes(given, area)
        self.nodata = {layer.name: layer.nodata_of(given.card.legend) for layer in given.layers}
        self.batch, self.network = self.plan.batch, given.network
        self.slots = 0
        """Of the batches of the row at hand."""

    def make(self, index: int, strips: list[Strip]) -> Piece | None:
        """Rows of output that become final with row of windows `index`; None where none of ours does."""
        self._heed_stop()
        stages = self.given.stages
        with stages.time("mask"):
            dates = self._dates(strips)
            valids = [self._valid(index, date) for date in dates]
            valid = np.logical_or.reduce(valids) if len(dates) > 1 else valids[0]
            seen = partial(on_output, valid, self._origin(index), scale=self.plan.scale)
            active = [j for j in self.columns if self._votes_on(index, j, valid).any()]
            piece = self._blank(index)
        run, self.slots = len(active), 0
        self.votes.next_row()
        images = [[self._on_device(strip.values) for strip in date] for date in dates]
        while active:
            self._heed_stop()
            batch = [column for column in active if column // self.batch == active[0] // self.batch]
            if not self._run(index, batch, images, valids):
                self.batch = max(1, self.batch // 2)
                continue
            with stages.time("blend"), torch.inference_mode():
                for group in _neighbours(batch):
                    for part in self.votes.pieces(index, group, group[0] % self.batch, seen):
                        if piece is not None:
                            piece.put(part)
            active = active[len(batch) :]
        self.given.on_windows(run, len(self.columns) - run, self.slots)
        if piece is not None:
            with stages.time("mask"):
                piece.hide(~seen(piece.window), self.nodata)
        return piece

    def _dates(self, strips: list[Strip]) -> list[list[Strip]]:
        """Strips of each date, the latest first: one a band group."""
        groups = len(self.given.card.groups)
        return [strips[first : first + groups] for first in range(0, len(strips), groups)]

    def _heed_stop(self) -> None:
        if self.given.stop.is_set():
            raise StoppedError

    def _blank(self, index: int) -> Piece | None:
        """Rows that become final with row of windows `index`, still without a class."""
        rows = self.votes.final_rows(index)
        window = Window(rows[0], self.area.col, rows[1] - rows[0], self.area.width).clip(self.area)
        return Piece.blank(self.given.layers, self.given.card, window) if window else None

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

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        """(y, x, band) strip -> (band, y, x) view on the device."""
        with self.given.stages.time("copy"):
            return torch.from_numpy(values).to(self.given.predictor.device).permute(2, 0, 1)

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
            yield torch.from_numpy(share).to(self.given.predictor.device)

    def _forward(self, batch: list[int], images: list[Tensor], take: Callable[[Tensor], None]) -> bool:
        """Hand over the scores of a batch, empty slots included; False where it does not fit into memory."""
        stages, card = self.given.stages, self.given.card
        with stages.time("copy"):
            windows = [self._cut(batch, image, g.ratio) for image, g in zip(images, card.groups, strict=True)]
        try:
            with stages.time("forward"):
                scores = self.network(windows)
                _finish(scores)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self.batch == 1:
                height, width = windows[0].shape[2:]
                raise MachineError(
                    f"a window of {height} x {width} px does not fit into the memory of "
                    f"{self.given.predictor.device}; give a smaller --window"
                ) from None
            return False
        side = (self.plan.output(self.plan.y.window), self.plan.output(self.plan.x.window))
        self.slots += self.batch
        own = scores[:, :-1] if self.given.telling else scores
        check_scores(own, card, self.batch, side)
        with stages.time("blend"), torch.inference_mode():
            take(scores)
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
        for column in batch:
            first = (column - self.columns[0]) * self.plan.x.step // ratio
            windows[column % self.batch].copy_(image[:, :, first : first + width])
        return windows


def _finish(scores: Tensor) -> None:
    """Wait for the device, so that what follows is not counted as its time."""
    if scores.device.type == "cuda":
        torch.cuda.synchronize(scores.device)


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
