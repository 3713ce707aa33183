"""Rows of output that a row of windows makes final: in the making on the device, then on the way here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.engine.canvas import Piece
from citycover.engine.input import SweepInput
from citycover.engine.ranking import Ranking
from citycover.engine.transfer import Ticket, Transfer
from citycover.geometry.window import Window
from citycover.model.checks import are_probabilities, refuse_numbers
from citycover.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a row of windows sees the image."""

    window: Window
    """Output pixels that its windows vote on; may begin and end outside of the map."""
    valid: NDArray[Any]
    """(y, x) of it: True where the image is valid."""

    def of(self, window: Window) -> NDArray[Any]:
        """(y, x) True where output pixels are valid, as a view."""
        return self.valid[window.shift(-self.window.row, -self.window.col).slices]


class OpenRow:
    """Nodata everywhere, until windows of the row have voted."""

    def __init__(
        self,
        given: SweepInput,
        transfer: Transfer,
        index: int,
        window: Window | None,
        area: Window,
        sight: Sight,
    ) -> None:
        """Make room.

        Args:
            given: the sweep.
            transfer: to the device.
            index: of the row of windows.
            window: output pixels that become final with it; None: none of those that are wanted.
            area: those that are wanted.
            sight: of the row.
        """
        self.given, self.transfer, self.index = given, transfer, index
        self.window, self.area, self.sight = window, area, sight
        self._doubts: list[tuple[list[int], Tensor]] = []
        self._layers: dict[str, Tensor] = {}
        self._nodata = {layer.name: layer.nodata_of(given.card.legend) for layer in given.layers}
        if window is not None:
            pixels, channels = (window.height, window.width), len(given.card.channels)
            self._layers = {
                layer.name: torch.full(
                    layer.shape(channels, pixels),
                    self._nodata[layer.name],
                    dtype=torch.uint8,
                    device=given.predictor.device,
                )
                for layer in given.layers
            }
        # Sent before the network is told of the row; a processor need not look at all unless it is asked.
        self._wanted = self._upload() if self.late else None

    @property
    def late(self) -> bool:
        """Whether the device is not done with what it was told when the next thing is."""
        return self.transfer.ahead

    def _upload(self) -> Tensor:
        """(y, x) of what is seen, on the device: True where a pixel is valid and wanted."""
        whole = self.sight.window
        wanted = torch.zeros(
            (whole.height, whole.width), dtype=torch.bool, device=self.given.predictor.device
        )
        if (inside := whole.clip(self.area)) is not None:
            part = inside.shift(-whole.row, -whole.col).slices
            wanted[part] = self.transfer.upload(self.sight.valid)[part]
        return wanted

    def wanted(self, window: Window) -> Tensor:
        """(y, x) on the device: True where output pixels are valid and wanted, as a view."""
        if self._wanted is None:
            self._wanted = self._upload()
        return self._wanted[window.shift(-self.sight.window.row, -self.sight.window.col).slices]

    def put(self, window: Window, ranking: Ranking) -> None:
        """Fill output pixels, which lie inside of `window`, in every layer."""
        assert self.window is not None, "nothing is final that is not wanted"
        part = window.shift(-self.window.row, -self.window.col).slices
        for layer in self.given.layers:
            self._layers[layer.name][(..., *part)] = layer.of(ranking)

    def doubt(self, columns: list[int], ranges: Tensor) -> None:
        """Note (n, 2) least and largest vote of windows, to be looked at when the row has arrived."""
        self._doubts.append((columns, ranges))

    def close(self) -> ComingRow:
        """No window votes any more: hide what is not valid, and send for the rest."""
        if self.window is not None and not self.sight.of(self.window).all():
            invalid = ~self.wanted(self.window)
            for name, values in self._layers.items():
                values.masked_fill_(invalid, self._nodata[name])
        ranges = [torch.cat([ranges for _, ranges in self._doubts])] if self._doubts else []
        columns = [column for some, _ in self._doubts for column in some]
        ticket = self.transfer.download([*self._layers.values(), *ranges])
        return ComingRow(self.given, self.index, self.window, tuple(self._layers), columns, ticket)


@dataclass(frozen=True, slots=True)
class ComingRow:
    """Rows of output on their way from the device."""

    given: SweepInput
    index: int
    window: Window | None
    names: tuple[str, ...]
    """Of layers, in the order in which they come."""
    doubted: list[int]
    """Columns of the windows whose votes are looked at."""
    ticket: Ticket

    def arrived(self) -> Piece | None:
        """Wait for them; None where there are none.

        Raises:
            ModelError: a window voted on a valid pixel with something that is no probability.
        """
        arrays = self.ticket.wait()
        if self.doubted:
            for column, (low, high) in zip(self.doubted, arrays[-1].tolist(), strict=True):
                if not are_probabilities(low, high):
                    window = input_window(self.given.plan, self.index, column)
                    refuse_numbers(low, high, self.given.card, window)
        if self.window is None:
            return None
        return Piece(self.window, dict(zip(self.names, arrays, strict=False)))


def input_window(plan: Plan, index: int, column: int) -> Window:
    """Pixels of the scene that window (index, column) looks at."""
    row, col = plan.origin[0] + plan.y.start(index), plan.origin[1] + plan.x.start(column)
    return Window(row, col, plan.y.window, plan.x.window)
