"""Between the memory of the machine and that of the device, while both compute.

A GPU is told what to do and does it in its own time, in a stream. What it shall read and what it has made
cross in streams of their own, by way of memory that the system may not move: so the network waits for no
copy, and who tells it what to do does not wait for the network.

```
stream in         strip k+1 ─┐      strip k+2 ─┐
own stream    network k ─────┴─ network k+1 ───┴─ network k+2
stream out            └─ rows k           └─ rows k+1
```
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.machine.cores import short_turns
from citycover.machine.memory import share_heaps
from citycover.machine.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterator


class Ticket(Protocol):
    """What is on its way back."""

    def wait(self) -> list[NDArray[Any]]:
        """The arrays, once they are whole; nobody else writes into them."""
        ...


class Transfer(Protocol):
    """Carries arrays to the device and back."""

    @property
    def ahead(self) -> bool:
        """Whether this thread goes on before what the device was told is done."""
        ...

    def upload(self, values: NDArray[Any]) -> Tensor:
        """The same on the device, for what is told to it from now on.

        `values` may be written into as soon as all that reads the tensor was told to the device; where
        `ahead`, at once.
        """
        ...

    def download(self, tensors: Sequence[Tensor]) -> Ticket:
        """Ask for what tensors hold once all that the device was told so far is done.

        Nobody may write into the tensors any more.
        """
        ...

    def time(self, stage: str) -> AbstractContextManager[None]:
        """Add the time that the device takes for what the body tells it to `stage`."""
        ...


def transfer_to(device: torch.device, stages: Stages) -> Transfer:
    """What carries arrays to a device."""
    return CudaTransfer(device, stages) if device.type == "cuda" else HostTransfer(device, stages)


@dataclass(frozen=True, slots=True)
class _There:
    """A ticket for what is there."""

    arrays: list[NDArray[Any]]

    def wait(self) -> list[NDArray[Any]]:
        return self.arrays


@dataclass(frozen=True, slots=True)
class HostTransfer:
    """A processor, or any device that answers before the next thing is told: what is told is done."""

    device: torch.device
    stages: Stages
    ahead: bool = False

    def upload(self, values: NDArray[Any]) -> Tensor:
        """On a processor, the same memory."""
        with self.stages.time("copy"):
            return torch.from_numpy(values).to(self.device)

    def download(self, tensors: Sequence[Tensor]) -> Ticket:
        """On a processor, the same memory."""
        return _There([tensor.cpu().numpy() for tensor in tensors])

    def time(self, stage: str) -> AbstractContextManager[None]:
        """Add the time of the body."""
        return self.stages.time(stage)


_Span = tuple[str, torch.cuda.Event, torch.cuda.Event]
"""A stage, and what marks its begin and its end in the stream."""


class CudaTransfer:
    """A GPU. torch keeps memory from being used anew before the streams that look at it are done with it."""

    ahead = True

    def __init__(self, device: torch.device, stages: Stages) -> None:
        self.device, self.stages = device, stages
        self._in, self._out = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._spans: list[_Span] = []
        share_heaps()
        short_turns()

    def upload(self, values: NDArray[Any]) -> Tensor:
        """Copied here into memory that does not move; crosses while the device computes."""
        own = torch.cuda.current_stream(self.device)
        with self.stages.time("copy"):
            here = torch.from_numpy(values)
            fixed = torch.empty(here.shape, dtype=here.dtype, pin_memory=True).copy_(here)
            with torch.cuda.stream(self._in):
                there = fixed.to(self.device, non_blocking=True)
            own.wait_stream(self._in)
            there.record_stream(own)
        return there

    def download(self, tensors: Sequence[Tensor]) -> Ticket:
        """Crosses while the device goes on computing."""
        self._out.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._out):
            arrays = []
            for tensor in tensors:
                fixed = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                arrays.append(fixed.copy_(tensor, non_blocking=True).numpy())
                tensor.record_stream(self._out)
            done = torch.cuda.Event()
            done.record()
        spans, self._spans = self._spans, []
        return _CudaTicket(self.stages, done, arrays, spans)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Between marks in the stream; looked at when rows that come after them have arrived."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(self.device)
        begin.record(stream)
        try:
            yield
        finally:
            end.record(stream)
        self._spans.append((stage, begin, end))


@dataclass(frozen=True, slots=True)
class _CudaTicket:
    """Arrays that cross, and what the device did before."""

    stages: Stages
    done: torch.cuda.Event
    arrays: list[NDArray[Any]]
    spans: list[_Span]

    def wait(self) -> list[NDArray[Any]]:
        with self.stages.time("device"):
            self.done.synchronize()
        for stage, begin, end in self.spans:
            self.stages.add(stage, begin.elapsed_time(end) / 1000)
        return self.arrays
