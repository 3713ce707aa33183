"""A device that is behind: whatever crosses late, and in whatever order, the map is the same."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from late import LateTransfer
from making import CASE, FILL, cnn, make_card, make_case, make_scene, plan_of, pointwise, run_sweeps
from strategies import sweeps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from citycover.engine.canvas import FinishedBlock
from citycover.engine.input import Room, SweepInput
from citycover.engine.open_row import ComingRow
from citycover.engine.rows import PreparedRow, RowMaker
from citycover.engine.sweep import sweep
from citycover.engine.transfer import HostTransfer, transfer_to
from citycover.errors import ModelError, StoppedError
from citycover.machine.stages import Stages
from citycover.model.predictor import FunctionPredictor
from citycover.read.reader import ArrayReader

MOST = 3
"""Rows that may be under way: one that is told, one that waits, one that is waited for."""


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


def test_a_device_is_told_of_batches_rather_than_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thing that it is told takes its turn at the interpreter's lock, beside threads that compress."""
    told: list[int] = []
    make = RowMaker.make

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            told[-1] += 1
            return func(*args, **(kwargs or {}))

    def counted(self: RowMaker, prepared: PreparedRow) -> ComingRow:
        told.append(0)
        with Counted():
            return make(self, prepared)

    monkeypatch.setattr(RowMaker, "make", counted)
    rows = []
    for batch in (1, 8):
        told.clear()
        case = make_case(CASE | {"shape": (70, 126), "block": (70, 126), "batch": batch})
        image, valid, card, plan = case
        assert plan.x.count == 8
        run_sweeps(plan, card, cnn, [image], [valid], transfer=LateTransfer([9]))
        rows.append(told[1])
    assert rows[1] < rows[0] / 3
