"""Scores become pieces of output: probabilities where windows vote, blended, then the layers made of them.

```
scores of a batch ─▶ probabilities, checked ─▶ [watched] ─▶ blended with neighbours ─▶ [evidence] ─┐
[of each date ─▶ averaged over dates]                                     layers, on the host ◀─┘
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.classes.legend import lookup_table
from citycover.engine.blend import RowBlender
from citycover.engine.canvas import Piece
from citycover.engine.input import SweepInput
from citycover.engine.ranking import Ranker
from citycover.geometry.window import Window
from citycover.machine.memory import pages
from citycover.model.checks import PROBABILITIES, refuse_numbers
from citycover.model.predictor import to_probabilities

Seen = Callable[[Window], NDArray[np.bool_]]
"""Output pixels -> (y, x) True where they are valid."""


class Votes:
    """What windows say of the pixels that they share, from the scores of a batch to final pixels."""

    def __init__(self, given: SweepInput, area: Window) -> None:
        """`area`: output pixels that are wanted; pieces end at its border."""
        self.given, self.plan, self.area = given, given.plan, area
        scale = self.plan.scale
        self.trim = (int(self.plan.y.trim * scale), int(self.plan.x.trim * scale))
        self.step = (int(self.plan.y.step * scale), int(self.plan.x.step * scale))
        self.feather = (int(self.plan.y.feather * scale), int(self.plan.x.feather * scale))
        self.side = (self.step[0] + self.feather[0], self.step[1] + self.feather[1])
        self.blender = RowBlender(self.feather)
        card = given.card
        self.rank = Ranker(lookup_table(card.channels), given.predictor.device, card.task == "classes")
        self.channels, self.watching = len(card.channels), given.watching
        # Planes of the network: classes, and how far members differ.
        self.said = self.channels + given.telling
        planes = self.said + (self.watching is not None)
        shape = (self.plan.batch, planes, *self.side)  # (slot, what was said or seen, S + f, S + f)
        self.kept = _static(shape, given.predictor.device)
        self._date: Tensor | None = None

    def next_row(self) -> None:
        """Begin the next row of windows."""
        self.blender.next_row()

    def take(self, scores: Tensor) -> None:
        """Keep the probabilities where the windows vote; (slot, class, W, W) scores may be forgotten."""
        self._hear(scores, self.kept[: len(scores), : self.said])

    def _hear(self, scores: Tensor, into: Tensor) -> Tensor:
        """What is said where windows vote: (slot, class, S + f, S + f), then disagreement."""
        (ty, tx), (height, width) = self.trim, self.side
        voting = scores[:, :, ty : ty + height, tx : tx + width]
        heard = voting if self.said == self.channels else voting[:, : self.channels]
        to_probabilities(heard, self.given.card, into[:, : self.channels])
        if self.said > self.channels:
            into[:, -1] = voting[:, -1]
        return into

    def clear(self) -> None:
        """Begin a batch whose probabilities are added up, date by date."""
        self.kept.zero_()

    def add(self, scores: Tensor, shares: Tensor, index: int, columns: list[int], slots: int) -> None:
        """Add the probabilities of one date.

        Args:
            scores: (slot, class, W, W), which may be forgotten.
            shares: (slot, S + f, S + f) how far the date counts; where it is 0 scores may be anything.
            index: row of windows.
            columns: those that are among the scores.
            slots: of a batch; a window has slot `column % slots`.

        Raises:
            ModelError: something that counts is no probability.
        """
        if self._date is None:
            shape = (len(self.kept), self.said, *self.side)
            self._date = _static(shape, self.given.predictor.device)
        own = self._hear(scores, self._date[: len(scores)])
        own.masked_fill_((shares == 0)[:, None], 0)
        low, high = torch.stack(torch.aminmax(own)).tolist()
        if not PROBABILITIES[0] <= low <= high <= PROBABILITIES[1]:  # false for NaN
            bad = ~((own >= PROBABILITIES[0]) & (own <= PROBABILITIES[1])).flatten(1).all(1)
            column = next(column for column in columns if bad[column % slots])
            refuse_numbers(own[column % slots], self.given.card, self._input_window(index, column))
        self.kept[: len(scores), : self.said].add_(own.mul_(shares[:, None]))

    def final_rows(self, index: int) -> tuple[int, int]:
        """Output rows that are final after row of windows `index`: the first, and one past the last."""
        step, feather = self.step[0], self.feather[0]
        return index * step - feather, (index + 1) * step - feather * (index < self.plan.y.count - 1)

    def pieces(self, index: int, columns: list[int], slot: int, seen: Seen) -> Iterator[Piece]:
        """What neighbouring windows of row `index` make final; their votes lie in the slots from `slot` on.

        Raises:
            ModelError: a window votes on a valid pixel with something that is no probability.
        """
        votes = self.kept[slot : slot + len(columns)]  # (n, what was said or seen, S + f, S + f)
        alone = votes[:, : self.said]
        low, high = torch.stack(torch.aminmax(alone)).tolist()
        if not PROBABILITIES[0] <= low <= high <= PROBABILITIES[1]:  # false for NaN
            self._refuse(alone, index, columns, seen)
        if self.watching is not None:
            for column, vote in zip(columns, votes, strict=True):
                place = self.place(index, column, self.side)
                vote[-1] = self.watching.watch(vote[: self.channels], place, seen(place))
        ends_row = columns[-1] == self.plan.x.count - 1
        blended = self.blender.add(votes, columns[0], ends_row, index == self.plan.y.count - 1)
        for column, probabilities in zip(columns, blended, strict=True):
            place = self.place(index, column, probabilities.shape[1:])
            if (window := place.clip(self.area)) is not None:
                rows, cols = window.shift(-place.row, -place.col).slices
                yield Piece(window, self._layers(probabilities[:, rows, cols], window))

    def place(self, index: int, column: int, shape: tuple[int, ...]) -> Window:
        """Output pixels of what window (index, column) votes on; they may lie outside of the area."""
        (sy, sx), (fy, fx) = self.step, self.feather
        return Window(index * sy - fy, column * sx - fx, *shape)

    def _layers(self, probabilities: Tensor, window: Window) -> dict[str, NDArray[np.uint8]]:
        """([band,] y, x) of every layer from (what was said or seen, y, x) planes, which are used up."""
        apart = None
        if self.said > self.channels:
            apart, own = probabilities[self.channels], probabilities[: self.channels]
            probabilities = own if self.watching is None else torch.cat([own, probabilities[-1:]])
        if self.given.evidence is not None:
            probabilities = self.given.evidence(probabilities, window)
        lost = None if self.watching is None else probabilities[-1]
        ranking = self.rank(probabilities[: self.channels], lost, apart)
        return {layer.name: layer.of(ranking).cpu().numpy() for layer in self.given.layers}

    def _refuse(self, votes: Tensor, index: int, columns: list[int], seen: Seen) -> None:
        """Raise for numbers on valid pixels that are no probabilities; zero on others, which nobody sees.

        Some networks divide zero by zero where the input is filled.
        """
        bad = ~((votes >= PROBABILITIES[0]) & (votes <= PROBABILITIES[1])).all(1)  # (n, S + f, S + f)
        for column, where, numbers in zip(columns, bad.cpu().numpy(), votes, strict=True):
            place = self.place(index, column, where.shape)
            window = place.clip(self.area)
            if window is None:
                continue
            inside = window.shift(-place.row, -place.col).slices
            if (where[inside] & seen(window)).any():
                refuse_numbers(numbers, self.given.card, self._input_window(index, column))
        votes.masked_fill_(bad[:, None], 0)

    def _input_window(self, index: int, column: int) -> Window:
        """Pixels of the scene that window (index, column) looks at."""
        plan = self.plan
        row, col = plan.origin[0] + plan.y.start(index), plan.origin[1] + plan.x.start(column)
        return Window(row, col, plan.y.window, plan.x.window)


def _static(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A float32 tensor that is used again for every batch."""
    if device.type == "cpu":
        return torch.from_numpy(pages(shape, np.float32))
    return torch.empty(shape, device=device)
