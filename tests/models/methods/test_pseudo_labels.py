"""Pseudo-labels: thresholds by rank, strip by strip as at once, and what they let pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover_models.data.labels import IGNORE
from citycover_models.methods.pseudo_labels import EVERY, LEVELS, ScoreCounts, pseudo_labels, score_of


def plain_thresholds(levels: NDArray[np.int64], portion: float) -> list[float]:
    """As the record says it: every 16th of a class's own pixels, sorted, the one at rank floor(p N)."""
    best, predicted = levels.max(0).ravel(), levels.argmax(0).ravel()
    found = []
    for c in range(len(levels)):
        own = sorted(best[predicted == c][::EVERY].tolist(), reverse=True)
        rank = int(portion * len(own))
        found.append(own[rank - 1] / (LEVELS - 1) if rank else 1.0)
    return found


@given(seed=st.integers(0, 99), cut=st.integers(1, 39), portion=st.sampled_from([0.1, 0.5, 1.0]))
def test_counted_in_strips_thresholds_are_those_of_all_pixels(seed: int, cut: int, portion: float) -> None:
    levels = np.random.default_rng(seed).integers(0, LEVELS, (3, 40, 33))
    counts = ScoreCounts.empty(3)
    for part in (levels[:, :cut], levels[:, cut:]):
        counts.add(part, np.ones(part.shape[1:], np.bool_))
    assert counts.thresholds(portion, "probability") == pytest.approx(plain_thresholds(levels, portion))


def test_the_rank_is_counted_from_one_and_nothing_passes_where_it_is_none() -> None:
    levels = np.zeros((2, 1, 20 * EVERY), np.int64)
    levels[0, 0, ::EVERY] = LEVELS - 1 - np.arange(20)  # twenty pixels are looked at, best to worst
    counts = ScoreCounts.empty(2)
    counts.add(levels, np.ones((1, 20 * EVERY), np.bool_))
    tau = counts.thresholds(0.1, "probability")
    assert tau[0] == score_of(np.array(LEVELS - 2), "probability"), "floor(0.1 x 20) = 2: the second best"
    assert tau[1] == 1, "no pixel looks like it"
    assert ScoreCounts.empty(1).thresholds(0.9, "logit") == [1]
    few = ScoreCounts.empty(2)
    few.add(levels[:, :, : 9 * EVERY], np.ones((1, 9 * EVERY), np.bool_))
    assert few.thresholds(0.1, "probability")[0] == 1, "floor(0.1 x 9) = 0"


def test_invalid_pixels_are_not_counted() -> None:
    counts = ScoreCounts.empty(2)
    counts.add(np.full((2, 4, 4), 7), np.zeros((4, 4), np.bool_))
    assert not counts.counts.any() and not counts.passed.any()


def test_a_label_is_the_class_that_is_farthest_above_its_threshold() -> None:
    scores = np.array([[[0.6, 0.6, 0.5]], [[0.4, 0.3, 0.1]]])
    labels = pseudo_labels(scores, np.array([0.6, 0.35]))
    # 0.6/0.6 = 1 < 0.4/0.35 = 1.14; 1 > 0.86; 0.83 and 0.29 reach nothing
    assert labels.tolist() == [[1, 0, IGNORE]]


@given(st.integers(0, LEVELS - 1))
def test_levels_are_probabilities_or_logits(level: int) -> None:
    assert score_of(np.array(level), "probability") == level / (LEVELS - 1)
    assert score_of(np.array(level), "logit") == pytest.approx((level / (LEVELS - 1) - 0.5) * 64)
