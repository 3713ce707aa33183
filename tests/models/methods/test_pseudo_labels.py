"""Pseudo-labels: thresholds by rank, strip by strip as at once, and what they let pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover_models.data.labels import IGNORE
from citycover_models.methods.pseudo_labels import (
    EVERY,
    LEVELS,
    LOGIT_RANGE,
    ScoreCounts,
    pseudo_labels,
    score_of,
)
from citycover_models.nets.semantic_fpn import Score


def plain_thresholds(levels: NDArray[np.int64], portion: float) -> list[float]:
    """As the record says it: every 16th of a class's own pixels, sorted, the one at rank floor(p N)."""
    best, predicted = levels.max(0).ravel(), levels.argmax(0).ravel()
    found = []
    for c in range(len(levels)):
        own = sorted(best[predicted == c][::EVERY].tolist(), reverse=True)
        rank = int(portion * len(own))
        found.append(own[rank - 1] / (LEVELS - 1) if rank else np.inf)
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
    assert np.isinf(tau[1]), "no pixel looks like it"
    assert np.isinf(ScoreCounts.empty(1).thresholds(0.9, "logit"))
    few = ScoreCounts.empty(2)
    few.add(levels[:, :, : 9 * EVERY], np.ones((1, 9 * EVERY), np.bool_))
    assert np.isinf(few.thresholds(0.1, "probability")[0]), "floor(0.1 x 9) = 0"


def test_invalid_pixels_are_not_counted() -> None:
    counts = ScoreCounts.empty(2)
    counts.add(np.full((2, 4, 4), 7), np.zeros((4, 4), np.bool_))
    assert not counts.counts.any() and not counts.passed.any()


def test_a_label_is_the_class_that_is_farthest_above_its_threshold() -> None:
    scores = np.array([[[0.6, 0.6, 0.5]], [[0.4, 0.3, 0.1]]])
    labels = pseudo_labels(scores, np.array([0.6, 0.35]))
    # 0.6/0.6 = 1 < 0.4/0.35 = 1.14; 1 > 0.86; 0.83 and 0.29 reach nothing
    assert labels.tolist() == [[1, 0, IGNORE]]


def labelled(scores: NDArray[np.float64], score: Score) -> NDArray[np.uint8]:
    """(class, y, x) scores, counted and labelled, the best tenth of each class."""
    share = scores if score == "probability" else scores / LOGIT_RANGE + 0.5
    levels = np.round(share * (LEVELS - 1)).astype(np.int64)
    counts = ScoreCounts.empty(len(levels))
    counts.add(levels, np.ones(levels.shape[1:], np.bool_))
    return pseudo_labels(score_of(levels, score), counts.thresholds(0.1, score))


@pytest.mark.parametrize("other", [2.0, 19.0])
def test_a_class_that_is_best_nowhere_is_not_believed(other: float) -> None:
    sure = np.linspace(20, 30, 10_000)
    labels = labelled(np.stack([sure, np.full_like(sure, other)])[:, None], "logit")
    assert set(labels.ravel().tolist()) == {0, IGNORE}
    few = np.ones(EVERY)  # of one pixel that is looked at none is a tenth
    assert (labelled(np.stack([few, 0 * few])[:, None], "probability") == IGNORE).all()


@pytest.mark.parametrize("middle", [-30.0, -3.0, 0.0, 3.0, 25.0])
def test_the_surest_tenth_is_believed_whatever_the_sign_of_its_logits(middle: float) -> None:
    logits = middle + np.random.default_rng(0).uniform(-1, 1, 20_000)
    labels = labelled(np.stack([logits, np.full_like(logits, -32)])[:, None], "logit")[0]
    believed = labels == 0
    assert believed.mean() == pytest.approx(0.1, abs=0.02)
    assert logits[believed].min() > logits[~believed].max() - 0.001, "a level"


@given(level=st.integers(70, LEVELS - 1), seed=st.integers(0, 9))
def test_above_0_labels_are_those_of_the_published_ratio(level: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, tau = rng.uniform(0.01, 30, (3, 8, 8)), rng.uniform(5, 25, 3)
    tau[0] = score_of(np.array(level), "probability")
    ratio = scores / tau[:, None, None]
    wanted = np.where(ratio.max(0) >= 1, ratio.argmax(0), IGNORE)
    assert (pseudo_labels(scores, tau) == wanted).all()


@given(st.integers(0, LEVELS - 1))
def test_levels_are_probabilities_or_logits(level: int) -> None:
    assert score_of(np.array(level), "probability") == level / (LEVELS - 1)
    assert score_of(np.array(level), "logit") == pytest.approx((level / (LEVELS - 1) - 0.5) * 64)
