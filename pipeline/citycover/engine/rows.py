"""A strip of the image becomes a row of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.classes.legend import lookup_table
from citycover.engine.blend import BestClass, RowBlender
from citycover.engine.canvas import Piece
from citycover.engine.input import SweepInput
from citycover.engine.strips import Strip
from citycover.errors import MachineError, StoppedError, is_out_of_memory
from citycover.geometry.window import Window
from citycover.machine.memory import pages
from citycover.model.checks import check_scores
from citycover.model.predictor import to_probabilities


class RowMaker:
    """Runs the network over one row of windows after the other and puts the votes together."""

    def __init__(self, given: SweepInput, columns: range, block: Window) -> None:
        self.given, self.plan, self.columns = given, given.plan, columns
        self.cols = (block.col, block.col_end)
        scale = self.plan.scale
        self.feather = (int(self.plan.y.feather * scale), int(self.plan.x.feather * scale))
        self.step = (int(self.plan.y.step * scale), int(self.plan.x.step * scale))
        self.trim = (int(self.plan.y.trim * scale), int(self.plan.x.trim * scale))
        self.blender = RowBlender(self.feather)
        self.best = BestClass(len(given.card.channels), given.predictor.device)
        ids = lookup_table(given.card.channels)
        self.ids = None if (ids == np.arange(len(ids))).all() else ids
        self.nodata = given.card.legend.product_nodata
        self.batch = self.plan.batch
        sides = (step + feather for step, feather in zip(self.step, self.feather, strict=True))
        shape = (self.batch, len(given.card.channels), *sides)
        self.votes = _static(shape, given.predictor.device)

    def make(self, index: int, strips: list[Strip]) -> Piece:
        """Final rows of output after row of windows `index`."""
        self._heed_stop()
        stages = self.given.stages
        with stages.time("mask"):
            valid = self._valid(index, strips)
            active = [j for j in self.columns if self._votes_on(index, j, valid).any()]
            piece = self._blank(index)
        self.given.on_windows(len(active), len(self.columns) - len(active))
        self.blender.next_row()
        images = [self._on_device(strip.values) for strip in strips]
        while active:
            self._heed_stop()
            done = self._predict(index, active, images, piece)
            active = active[done:]
        with stages.time("mask"):
            self._mask(index, valid, piece)
        return piece

    def _heed_stop(self) -> None:
        if self.given.stop.is_set():
            raise StoppedError

    def _blank(self, index: int) -> Piece:
        """Rows that become final with row of windows `index`, still without a class."""
        first = index * self.step[0] - self.feather[0]
        last = (index + 1) * self.step[0] - self.feather[0] * (index < self.plan.y.count - 1)
        shape = (last - first, self.cols[1] - self.cols[0])
        return Piece(first, np.full(shape, self.nodata, np.uint8), np.zeros(shape, np.uint8))

    def _valid(self, index: int, strips: list[Strip]) -> NDArray[np.bool_]:
        """(y, x) of the strip, input pixels: valid in every group and inside the area of interest."""
        valid = strips[0].valid
        for group, strip in zip(self.given.card.groups[1:], strips[1:], strict=True):
            fine = strip.valid.repeat(group.ratio, axis=0).repeat(group.ratio, axis=1)
            valid = valid & fine[: valid.shape[0], : valid.shape[1]]
        if self.given.area is not None:
            row, col = self.plan.y.start(index), self.plan.x.start(self.columns[0])
            valid = valid & self.given.area(Window(row, col, *valid.shape))
        return valid

    def _votes_on(self, index: int, column: int, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Part of `valid` that window (index, column) votes on."""
        y, x = self.plan.y, self.plan.x
        rows, cols = y.votes(index), x.votes(column)
        row0, col0 = y.start(index), x.start(self.columns[0])
        return valid[rows[0] - row0 : rows[1] - row0, cols[0] - col0 : cols[1] - col0]

    def _on_device(self, values: NDArray[Any]) -> Tensor:
        """(band, y, x) view of a strip on the device."""
        with self.given.stages.time("copy"):
            return torch.from_numpy(values).to(self.given.predictor.device).permute(2, 0, 1)

    def _predict(self, index: int, active: list[int], images: list[Tensor], piece: Piece) -> int:
        """Run one batch of the windows that are due, and put its votes into the piece.

        Returns:
            How many windows, from the first on, were in the batch.
        """
        batch = [column for column in active if column // self.batch == active[0] // self.batch]
        scores = self._scores(batch, images)
        if scores is None:
            self.batch = max(1, self.batch // 2)
            return 0
        with self.given.stages.time("blend"), torch.inference_mode():
            (ty, tx), (sy, sx), (fy, fx) = self.trim, self.step, self.feather
            voting = scores[:, :, ty : ty + sy + fy, tx : tx + sx + fx]
            votes = to_probabilities(voting, self.given.card, self.votes[: self.batch])
            del scores, voting  # memory for what follows
            last_row = index == self.plan.y.count - 1
            for run in _neighbours(batch):
                slot = run[0] % self.batch
                ends_row = run[-1] == self.plan.x.count - 1
                tiles = self.blender.add(votes[slot : slot + len(run)], run[0], ends_row, last_row)
                for column, tile in zip(run, tiles, strict=True):
                    self._put(piece, column * sx - fx, *self.best(tile))
        return len(batch)

    def _scores(self, batch: list[int], images: list[Tensor]) -> Tensor | None:
        """Scores of a whole batch, empty slots included; None where it does not fit into memory."""
        stages = self.given.stages
        with stages.time("copy"):
            groups = self.given.card.groups
            windows = [self._cut(batch, image, g.ratio) for image, g in zip(images, groups, strict=True)]
        try:
            with stages.time("forward"):
                scores = self.given.predictor(windows)
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
            return None
        side = (self.plan.output(self.plan.y.window), self.plan.output(self.plan.x.window))
        check_scores(scores, self.given.card, self.batch, side)
        return scores

    def _cut(self, batch: list[int], image: Tensor, ratio: int) -> Tensor:
        """(n, band, y, x) own copy of the windows, channels_last: uint8 as it is, all else float32.

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

    def _put(self, piece: Piece, col: int, channel: Tensor, confidence: Tensor) -> None:
        """Place a tile whose first column is output pixel `col`; what lies outside the block is cropped."""
        first, last = max(col, self.cols[0]), min(col + channel.shape[1], self.cols[1])
        if last <= first:
            return
        to, of = slice(first - self.cols[0], last - self.cols[0]), slice(first - col, last - col)
        classes = channel.cpu().numpy()[:, of]
        piece.classes[:, to] = classes if self.ids is None else self.ids[classes]
        piece.confidence[:, to] = confidence.cpu().numpy()[:, of]

    def _mask(self, index: int, valid: NDArray[np.bool_], piece: Piece) -> None:
        """Make invalid pixels nodata."""
        up, down = self.plan.scale.numerator, self.plan.scale.denominator
        shape = piece.classes.shape
        # A piece may begin inside an input pixel, where that is several output pixels wide.
        row, above = piece.row // up * down - self.plan.y.start(index), piece.row % up
        col, left = self.cols[0] // up * down - self.plan.x.start(self.columns[0]), self.cols[0] % up
        high, wide = _ceil((above + shape[0]) / self.plan.scale), _ceil((left + shape[1]) / self.plan.scale)
        seen = _rescale(valid[row : row + high, col : col + wide], up, down)[above:, left:]
        invalid = np.ones(shape, np.bool_)
        invalid[: seen.shape[0], : seen.shape[1]] = ~seen[: shape[0], : shape[1]]
        if invalid.any():
            piece.classes[invalid] = self.nodata
            piece.confidence[invalid] = 0


def _static(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A float32 tensor that is used again for every batch."""
    if device.type == "cpu":
        return torch.from_numpy(pages(shape, np.float32))
    return torch.empty(shape, device=device)


def _finish(scores: Tensor) -> None:
    """Wait for the device, so that what follows is not counted as its time."""
    if scores.device.type == "cuda":
        torch.cuda.synchronize(scores.device)


def _ceil(value: Any) -> int:
    return int(-(-value // 1))


def _rescale(valid: NDArray[np.bool_], up: int, down: int) -> NDArray[np.bool_]:
    """Validity on a grid `up / down` as fine: a coarser pixel is valid where any pixel under it is."""
    if up > 1:
        valid = valid.repeat(up, axis=0).repeat(up, axis=1)
    if down > 1:
        pad = [(0, -n % down) for n in valid.shape]
        height, width = valid.shape[0] + pad[0][1], valid.shape[1] + pad[1][1]
        cells = np.pad(valid, pad).reshape(height // down, down, width // down, down)
        valid = np.logical_or.reduce(cells, axis=(1, 3))
    return valid


def _neighbours(columns: list[int]) -> Iterator[list[int]]:
    """Columns in lists without gaps.

    >>> list(_neighbours([0, 1, 4, 5, 6]))
    [[0, 1], [4, 5, 6]]
    """
    run = columns[:1]
    for column in columns[1:]:
        if column != run[-1] + 1:
            yield run
            run = []
        run.append(column)
    if run:
        yield run
