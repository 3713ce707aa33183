"""Scores become pieces of output: probabilities where windows vote, blended, then the layers made of them.

```
scores of a batch ─▶ probabilities, checked ─▶ [watched] ─▶ blended with neighbours ─▶ [evidence] ─┐
[of each date ─▶ averaged over dates]                                  layers of an open row ◀─┘
```
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from citycover.classes.legend import lookup_table
from citycover.engine.blend import RowBlender
from citycover.engine.input import SweepInput
from citycover.engine.open_row import OpenRow, input_window
from citycover.engine.ranking import Ranker, Ranking
from citycover.geometry.window import Window
from citycover.machine.memory import pages
from citycover.model.checks import PROBABILITIES, are_probabilities, refuse_numbers
from citycover.model.probabilities import to_probabilities


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
        ranges = _ranges(own).tolist()
        for column in columns:
            low, high = ranges[column % slots]
            if not are_probabilities(low, high):
                refuse_numbers(low, high, self.given.card, input_window(self.plan, index, column))
        self.kept[: len(scores), : self.said].add_(own.mul_(shares[:, None]))

    def final_rows(self, index: int) -> tuple[int, int]:
        """Output rows that are final after row of windows `index`: the first, and one past the last."""
        step, feather = self.step[0], self.feather[0]
        return index * step - feather, (index + 1) * step - feather * (index < self.plan.y.count - 1)

    def put(self, columns: list[int], slot: int, row: OpenRow) -> None:
        """Put what neighbouring windows make final into the open row.

        Args:
            columns: of the windows.
            slot: from which on their votes lie among those kept.
            row: of windows, and of the output that it makes final.

        Raises:
            ModelError: a window votes on a valid pixel with something that is no probability.
        """
        index, votes = row.index, self.kept[slot : slot + len(columns)]  # (n, planes, S + f, S + f)
        self._check(votes[:, : self.said], columns, row)
        if self.watching is not None:
            for column, vote in zip(columns, votes, strict=True):
                place = self.place(index, column, self.side)
                vote[-1] = self.watching.watch(vote[: self.channels], place, row.sight.of(place))
        ends_row = columns[-1] == self.plan.x.count - 1
        blended = self.blender.add(votes, columns[0], ends_row, index == self.plan.y.count - 1)
        for column, probabilities in self._pieces(columns[0], blended, row.late, ends_row):
            place = self.place(index, column, probabilities.shape[1:])
            if (window := place.clip(self.area)) is not None:
                rows, cols = window.shift(-place.row, -place.col).slices
                row.put(window, self._ranked(probabilities[:, rows, cols], window))

    def _pieces(
        self, first: int, blended: Tensor, together: bool, ends_row: bool
    ) -> Iterator[tuple[int, Tensor]]:
        """(planes, h, w) final probabilities and the column that they begin in.

        `together`: side by side, as one. A fast device would wait while it is told of each window alone.
        """
        final = blended[..., : self.step[1]]  # (n, planes, h, S)
        alone = len(blended) - ends_row
        if together and len(blended) > 1:
            joined = final.permute(1, 2, 0, 3).flatten(2)
            last = blended[-1, ..., self.step[1] :]
            yield first, torch.cat([joined, last], 2) if ends_row else joined
        else:
            yield from enumerate(final[:alone], first)
            if ends_row:
                yield first + alone, blended[-1]

    def place(self, index: int, column: int, shape: tuple[int, ...]) -> Window:
        """Output pixels of what window (index, column) votes on; they may lie outside of the area."""
        (sy, sx), (fy, fx) = self.step, self.feather
        return Window(index * sy - fy, column * sx - fx, *shape)

    def _ranked(self, probabilities: Tensor, window: Window) -> Ranking:
        """The classes of (what was said or seen, y, x) planes, which are used up."""
        apart = None
        if self.said > self.channels:
            apart, own = probabilities[self.channels], probabilities[: self.channels]
            probabilities = own if self.watching is None else torch.cat([own, probabilities[-1:]])
        if self.given.evidence is not None:
            probabilities = self.given.evidence(probabilities, window)
        lost = None if self.watching is None else probabilities[-1]
        return self.rank(probabilities[: self.channels], lost, apart)

    def _check(self, votes: Tensor, columns: list[int], row: OpenRow) -> None:
        """Refuse numbers on valid pixels that are no probabilities; zero others, which evidence alone sees.

        Some networks divide zero by zero where the input is filled. A device that is ahead of this thread
        is not asked before the row arrives.
        """
        if not row.late and are_probabilities(*torch.stack(torch.aminmax(votes)).tolist()):
            return
        low, high = torch.aminmax(votes, dim=1)  # (n, S + f, S + f), NaN where there is one
        shape = (self.side[0], self.side[1] + self.step[1] * (len(columns) - 1))
        wanted = row.wanted(self.place(row.index, columns[0], shape)).unfold(1, self.side[1], self.step[1])
        unseen = ~((low >= PROBABILITIES[0]) & (high <= PROBABILITIES[1]) | wanted.transpose(0, 1))
        if self.given.evidence is not None:
            votes.masked_fill_(unseen[:, None], 0)
        low, high = (values.masked_fill_(unseen, 0) for values in (low, high))
        row.doubt(columns, torch.stack([low.amin((1, 2)), high.amax((1, 2))], 1))


def _ranges(votes: Tensor) -> Tensor:
    """(n, 2) least and largest number of (n, class, y, x); NaN where there is one."""
    return torch.stack(torch.aminmax(votes.flatten(1), dim=1), 1)


def _static(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A float32 tensor that is used again for every batch."""
    if device.type == "cpu":
        return torch.from_numpy(pages(shape, np.float32))
    return torch.empty(shape, device=device)
