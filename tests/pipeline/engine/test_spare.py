"""Arrays of blocks that were written are used again: nothing of what they held is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from making import cnn, make_card, make_scene, plan_of, put, run_sweeps
from numpy.typing import NDArray

from citycover.engine.blocks import run_blocks
from citycover.engine.canvas import FinishedBlock, Spare
from citycover.engine.input import SweepInput
from citycover.model.predictor import FunctionPredictor
from citycover.plan.plan import Block
from citycover.read.reader import ArrayReader


class Kept:
    """A sink that copies."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.classes, self.confidence = (np.full(shape, 99, np.uint8) for _ in range(2))

    def finished(self, _among: Sequence[Block] | None) -> set[tuple[int, int]]:
        return set()

    def write(self, finished: FinishedBlock) -> None:
        put(finished, self.classes, self.confidence)


def test_blocks_in_used_arrays_are_those_in_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    given, taken = Spare.give, Spare.take
    used: list[bool] = []

    def spoil(self: Spare, layers: Mapping[str, NDArray[np.uint8]]) -> None:
        for values in layers.values():
            values[:] = 77
        given(self, layers)

    def take(self: Spare, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        values = taken(self, name, shape)
        used.append(bool((values == 77).all()))
        return values

    monkeypatch.setattr(Spare, "give", spoil)
    monkeypatch.setattr(Spare, "take", take)
    image = np.random.default_rng(0).integers(0, 256, (150, 90, 3), np.uint8)
    valid = np.ones((150, 90), np.bool_)
    valid[40:130, 20:70] = False  # rows of windows of which none is run, and parts of others
    card = make_card(30, 4, 6)
    plan = plan_of(make_scene((150, 90)), card, block=(22, 33), batch=2)
    sink = Kept(plan.shape)
    start = SweepInput(plan, FunctionPredictor(card, cnn), lambda: [ArrayReader(image, valid)])
    run_blocks(start, sink, lambda _block: None)
    assert any(used), "blocks are written while others are made"
    classes, confidence = run_sweeps(plan, card, cnn, [image], [valid])
    np.testing.assert_array_equal(sink.classes, classes)
    np.testing.assert_array_equal(sink.confidence, confidence)


def test_arrays_of_another_shape_go() -> None:
    spare = Spare()
    small, large = np.zeros((2, 3), np.uint8), np.zeros((4, 3), np.uint8)
    spare.give({"classes": large, "confidence": large})
    spare.give({"classes": small})
    assert spare.take("classes", (2, 3)) is small
    assert spare.take("classes", (4, 3)) is not large
    assert spare.take("confidence", (4, 3)) is large
