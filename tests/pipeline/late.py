"""A device that is behind what it was told, on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.engine.transfer import Ticket

POISON = 0xAA


@dataclass
class LateTicket:
    """Poison, until it is waited for, or something else happened so many times."""

    tensors: Sequence[Tensor]
    arrays: list[NDArray[Any]]
    patience: int
    done: bool = False

    def arrive(self) -> None:
        """Take what the tensors hold now: whoever wrote into them meanwhile is found out."""
        if not self.done:
            for tensor, array in zip(self.tensors, self.arrays, strict=True):
                array[...] = tensor.numpy()
        self.done = True

    def wait(self) -> list[NDArray[Any]]:
        self.arrive()
        return self.arrays


@dataclass
class LateTransfer:
    """The device as it may be at its worst, on a processor."""

    patience: Sequence[int]
    """How many things later a download arrives by itself, one after the other."""
    ahead: bool = True
    under_way: list[LateTicket] = field(default_factory=list)
    most: int = 0

    def _happens(self) -> None:
        for ticket in self.under_way:
            ticket.patience -= 1
            if ticket.patience < 0:
                ticket.arrive()

    def upload(self, values: NDArray[Any]) -> Tensor:
        self._happens()
        return torch.from_numpy(values.copy())

    def download(self, tensors: Sequence[Tensor]) -> Ticket:
        self._happens()
        poisoned = [np.frombuffer(bytearray([POISON]) * t.nbytes, t.numpy().dtype) for t in tensors]
        arrays = [array.reshape(tensor.shape) for array, tensor in zip(poisoned, tensors, strict=True)]
        patience = self.patience[len(self.under_way) % len(self.patience)]
        self.under_way.append(LateTicket(tensors, arrays, patience))
        self.most = max(self.most, sum(not ticket.done for ticket in self.under_way))
        return self.under_way[-1]

    def time(self, _stage: str) -> AbstractContextManager[None]:
        return nullcontext()
