"""A device that is behind: whatever crosses late, and in whatever order, the map is the same."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import CASE, FILL, cnn, make_card, make_case, make_scene, plan_of, pointwise, run_sweeps
from numpy.typing import NDArray
from strategies import sweeps
from torch import Tensor

from citycover.engine.canvas import FinishedBlock
from citycover.engine.input import Room, SweepInput
from citycover.engine.sweep import sweep
from citycover.engine.transfer import HostTransfer, Ticket, transfer_to
from citycover.errors import ModelError, StoppedError
from citycover.machine.stages import Stages
from citycover.model.predictor import FunctionPredictor
from citycover.read.reader import ArrayReader

POISON = 0xAA

MOST = 3
"""Rows that may be under way: one that is told, one that waits, one that is waited for."""


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


late = st.builds(LateTransfer, st.lists(st.integers(0, 9), min_size=1, max_size=5))


@given(sweeps(), late)
def test_rows_that_come_late_are_the_same_rows(run: dict[str, Any], transfer: LateTransfer) -> None:
    image, valid, card, plan = make_case(run)
    wanted = run_sweeps(plan, card, cnn, [image], [valid])
    made = run_sweeps(plan, card, cnn, [image], [valid], transfer=transfer)
    for one, other in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert transfer.most <= MOST


def broken(image: Tensor) -> Tensor:
    """Divides zero by zero where the image is as dark as it is filled."""
    return torch.where((image[:, :1] == FILL[0]).expand(-1, 5, -1, -1), torch.nan, pointwise(image))


@pytest.mark.parametrize("ahead", [False, True])
def test_numbers_that_are_none_are_refused_however_late_they_are_seen(ahead: bool) -> None:
    image, _, card, plan = make_case(CASE | {"shape": (90, 60), "block": (30, 60), "batch": 2})
    image[image == FILL[0]] = 11
    image[40, 33] = FILL[0]
    valid = np.ones((90, 60), np.bool_)
    given_ = {"transfer": LateTransfer([9], ahead)}
    with pytest.raises(ModelError, match=r"not finite.* for the window of 23 x 23 px at row 25, column 25 "):
        run_sweeps(plan, card, broken, [image], [valid], **given_)
    valid[40, 33] = False
    made = run_sweeps(plan, card, broken, [image], [valid], **given_)
    assert made[0][40, 33] == 0 and (made[0][valid] > 0).all()


@given(late, st.sampled_from(["memory", "stop"]), st.integers(0, 12))
def test_a_batch_that_does_not_fit_or_a_stop_loses_nothing(
    transfer: LateTransfer, trouble: str, when: int
) -> None:
    image, valid, card, plan = make_case(CASE | {"shape": (90, 90), "block": (30, 90), "batch": 4})
    calls, room, stop = [0], Room(), threading.Event()

    def troubled(windows: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == when and trouble == "stop":
            stop.set()
        if calls[0] >= when and len(windows) > 1 and trouble == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return cnn(windows)

    wanted = run_sweeps(plan, card, cnn, [image], [valid])[0]
    given_ = SweepInput(
        plan,
        FunctionPredictor(card, troubled),
        lambda: [ArrayReader(image, valid)],
        stop=stop,
        room=room,
        transfer=transfer,
    )
    finished: list[FinishedBlock] = []
    try:
        finished += sweep(given_, list(plan.blocks()))
    except StoppedError:
        assert stop.is_set()
    else:
        assert len(finished) == 3
        assert room.batch == (1 if trouble == "memory" and calls[0] >= when else None)
    for block in finished:
        np.testing.assert_array_equal(block.layers["classes"], wanted[block.block.window.slices])


def test_what_fits_is_remembered_by_the_next_sweep() -> None:
    image, valid, card, plan = make_case(CASE | {"shape": (60, 60), "block": (60, 30), "batch": 2})
    sizes = []

    def greedy(windows: Tensor) -> Tensor:
        sizes.append(len(windows))
        if len(windows) > 1:
            raise torch.OutOfMemoryError
        return cnn(windows)

    run_sweeps(plan, card, greedy, [image], [valid], room=Room())
    assert sizes.count(2) == 1 and plan.block_counts[1] == 2


def test_a_processor_hands_over_its_own_memory() -> None:
    transfer, values = transfer_to(torch.device("cpu"), Stages()), np.arange(6).reshape(2, 3)
    assert isinstance(transfer, HostTransfer) and not transfer.ahead
    tensor = transfer.upload(values)
    assert tensor.data_ptr() == values.ctypes.data
    assert transfer.download([tensor]).wait()[0].ctypes.data == values.ctypes.data


def test_what_is_counted_of_windows_counts_rows_under_way() -> None:
    card = make_card(24, 3, 2)
    plan = plan_of(make_scene((60, 60)), card, block=(60, 60))
    image, counted = np.ones((60, 60, 3), np.uint8), []
    run_sweeps(
        plan,
        card,
        cnn,
        [image],
        [None],
        transfer=LateTransfer([5]),
        on_windows=lambda *row: counted.append(row),
    )
    assert sum(run for run, _, _ in counted) == plan.windows
