"""Offsets that were planted into labels of a practice city are found; where there is none, none is said."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from citycover.classes.table import NO_CLASS
from citycover.evidence.offset import NO_OFFSET, LabelOffset, ShiftScores
from citycover.geometry.window import Window
from citycover.synth.city import city_window

CLASSES = 6
SIDE = 400
"""Pixels of the block that is heard; 3 cells more of labels lie around it."""
CELL = 10
AROUND = 4 * CELL

few = settings(max_examples=5)
parts = st.integers(-2 * CELL, 2 * CELL)
seeds = st.integers(0, 3)


@cache
def truth(seed: int) -> NDArray[np.uint8]:
    """(y, x) channels."""
    side = SIDE + 2 * AROUND + 2 * CELL
    return city_window(seed, Window(0, 0, side, side))[1] - 1


def coarse(seed: int, down: int, right: int, noise: float) -> NDArray[np.int16]:
    """Majority of cells that say `down` and `right` of a pixel what it shows, a share of them redrawn."""
    rng = np.random.default_rng(seed)
    near = np.roll(truth(seed), (down, right), (0, 1)).astype(np.int16)
    cells = near.reshape(near.shape[0] // CELL, CELL, near.shape[1] // CELL, CELL)
    counts = np.stack([(cells == k).sum((1, 3)) for k in range(CLASSES)])
    best = np.where(
        rng.random(counts.shape[1:]) < noise, rng.integers(0, CLASSES, counts.shape[1:]), counts.argmax(0)
    )
    return best.astype(np.int16).repeat(CELL, 0).repeat(CELL, 1)


def network(seed: int, skill: float) -> NDArray[np.float32]:
    """(class, y, x) of a network that sees a little blurred, and for the rest believes in chance."""
    rng = np.random.default_rng(seed + 100)
    here = truth(seed)[AROUND : AROUND + SIDE, AROUND : AROUND + SIDE]
    seen = np.stack([uniform_filter((here == k).astype(np.float32), 5) for k in range(CLASSES)])
    chance = rng.random((CLASSES, SIDE // 8, SIDE // 8), np.float32).repeat(8, 1).repeat(8, 2)
    return skill * seen + (1 - skill) * chance / chance.sum(0)


def heard(*blocks: tuple[NDArray[np.float32], NDArray[np.int16]]) -> LabelOffset:
    """What blocks of probabilities and labels say together."""
    scores = ShiftScores(CELL)
    first, last = AROUND - scores.margin, AROUND + SIDE + scores.margin
    for probabilities, labels in blocks:
        scores.add(probabilities, labels[first:last, first:last])
    return scores.offset()


@few
@given(parts, parts, st.floats(0, 0.3), st.floats(0.3, 1))
def test_a_planted_offset_is_found_to_a_quarter_of_a_cell(
    down: int, right: int, noise: float, skill: float
) -> None:
    offset = heard(*((network(s, skill), coarse(s, down, right, noise)) for s in range(4)))
    assert abs(offset.rows - down) <= CELL / 4
    assert abs(offset.cols - right) <= CELL / 4
    assert offset.sure or np.hypot(down, right) < CELL / 2
    assert offset.applied == ((offset.rows, offset.cols) if offset.sure else (0, 0))


@few
@given(seeds, st.integers(-1, 1), st.integers(-1, 1), st.floats(0, 0.5), st.floats(0.1, 1))
def test_labels_that_lie_right_are_left_alone(
    seed: int, down: int, right: int, noise: float, skill: float
) -> None:
    assert not heard((network(seed, skill), coarse(seed, down, right, noise))).sure


@few
@given(seeds, parts, parts)
def test_chance_makes_no_offset(seed: int, down: int, right: int) -> None:
    assert not heard((network(seed, 0), coarse(seed, down, right, 0))).sure
    assert not heard((network(seed, 1), coarse(seed, down, right, 1))).sure


def test_unseen_pixels_and_missing_labels_have_no_say() -> None:
    labels, probabilities = coarse(1, 7, -12, 0), network(1, 0.7)
    labels[150:190] = NO_CLASS
    probabilities[:, 60:120, 80:200] = 0
    offset = heard((probabilities, labels))
    assert (offset.rows, offset.cols) == pytest.approx((7, -12), abs=CELL / 4)


def test_nothing_is_said_without_witnesses() -> None:
    scores = ShiftScores(CELL)
    assert scores.offset() == NO_OFFSET
    scores.add(np.zeros((CLASSES, 90, 90), np.float32), np.zeros((90 + 2 * scores.margin,) * 2, np.int16))
    assert not scores.offset().sure
    scores.add(np.ones((CLASSES, 3, 3), np.float32), np.zeros((3 + 2 * scores.margin,) * 2, np.int16))
    assert not scores.offset().sure


def test_the_order_of_blocks_does_not_matter() -> None:
    probabilities, labels = network(2, 0.5), coarse(2, 8, 5, 0.1)
    first, second = ShiftScores(CELL), ShiftScores(CELL)
    margin = first.margin
    halves = [slice(0, SIDE // 2), slice(SIDE // 2, SIDE)]
    for scores, order in ((first, halves), (second, halves[::-1])):
        for rows in order:
            near = labels[AROUND + rows.start - margin : AROUND + rows.stop + margin,
                          AROUND - margin : AROUND + SIDE + margin]  # fmt: skip
            scores.add(probabilities[:, rows], near)
    assert first.offset().applied == second.offset().applied != (0, 0)


def test_words_tell_what_was_done() -> None:
    assert str(LabelOffset(5, -12, 10, 0.01, sure=True)) == (
        "labels: they lie 0.50 cells down and 1.20 left of what the image shows; read from there"
    )
    assert "no offset" in str(LabelOffset(5, -12, 10, 0.4, sure=False))
