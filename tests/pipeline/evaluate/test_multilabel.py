"""Multi-label figures, with scikit-learn as the oracle and small cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover.evaluate.multilabel import average_precision, label_distance, score_labels


@st.composite
def answers(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores, some of them equal, and labels; each class is there at least once."""
    n, k = draw(st.integers(1, 7)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = rng.integers(0, 8, (n, k)) / 8
    truth = rng.random((n, k)) < draw(st.sampled_from([0.2, 0.5, 0.9]))
    truth[rng.integers(0, n, k), range(k)] = True
    return scores, truth


@given(answers())
def test_figures_are_those_of_scikit_learn(case: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    scores, truth = case
    found, said = score_labels(scores, truth), scores >= 0.5
    for mean in ("micro", "macro", "samples"):
        ours = getattr(found, mean)
        options = {"average": mean, "zero_division": 0}
        assert ours.precision == pytest.approx(oracle.precision_score(truth, said, **options))
        assert ours.recall == pytest.approx(oracle.recall_score(truth, said, **options))
        assert ours.f1 == pytest.approx(oracle.f1_score(truth, said, **options))
        assert ours.f2 == pytest.approx(oracle.fbeta_score(truth, said, beta=2, **options))
    assert found.macro_ap == pytest.approx(oracle.average_precision_score(truth, scores, average="macro"))
    assert found.micro_ap == pytest.approx(oracle.average_precision_score(truth, scores, average="micro"))
    assert found.coverage == pytest.approx(oracle.coverage_error(truth, scores))
    assert found.lrap == pytest.approx(oracle.label_ranking_average_precision_score(truth, scores))
    assert found.ranking_loss == pytest.approx(oracle.label_ranking_loss(truth, scores))
    assert found.hamming_loss == pytest.approx(oracle.hamming_loss(truth, said))
    assert found.subset_accuracy == pytest.approx(oracle.accuracy_score(truth, said))


def test_a_case_counted_by_hand() -> None:
    """Two scenes, three labels; the third label never occurs and stays out of the means over classes."""
    scores = np.array([[0.9, 0.6, 0.2], [0.4, 0.8, 0.7]])
    truth = np.array([[True, False, False], [True, True, False]])
    found = score_labels(scores, truth)
    # Answered yes: (1, 2) and (2, 3); right are 1 of scene one, 2 of scene two: TP 2, FP 2, FN 1.
    assert found.micro.precision == pytest.approx(2 / 4) and found.micro.recall == pytest.approx(2 / 3)
    assert found.micro.f2 == pytest.approx(2 / (2 + 0.2 * 2 + 0.8 * 1))
    # Class one: TP 1, FN 1; class two: TP 1, FP 1.
    assert found.macro.precision == pytest.approx((1 + 0.5) / 2)
    assert found.class_f2 == (pytest.approx(1 / 1.8), pytest.approx(1 / 1.2), None)
    # Scene two ranks 2, 3, 1: all true labels need three; of 2 x 1 pairs (3 above 1) one is wrong.
    assert found.coverage == pytest.approx((1 + 3) / 2)
    assert found.ranking_loss == pytest.approx((0 + 0.5) / 2)
    assert found.lrap == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)
    assert found.facts()["macro_ap"] == pytest.approx((1 + 1) / 2)


def test_scenes_without_labels_and_with_all() -> None:
    scores, truth = np.array([[0.1, 0.7], [0.2, 0.3]]), np.array([[False, False], [True, True]])
    found = score_labels(scores, truth)
    assert (found.lrap, found.ranking_loss) == (1.0, 0.0)
    assert found.coverage == oracle.coverage_error(truth, scores) == 1.0
    nothing = score_labels(scores, np.zeros_like(truth))
    assert (nothing.macro_ap, nothing.micro_ap, nothing.macro.f2) == (0.0, 0.0, 0.0)


def test_equal_scores_share_one_threshold() -> None:
    assert average_precision(np.full(4, 0.5), np.array([True, False, False, False])) == 0.25


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shape"):
        score_labels(np.zeros((2, 3)), np.zeros((2, 2), np.bool_))


def test_label_distance_by_hand() -> None:
    a = np.array([[1, 1, 0], [1, 0, 0]], np.bool_)  # frequencies 2/3, 1/3, 0
    b = np.array([[0, 1, 1]], np.bool_)  # 0, 1/2, 1/2
    assert label_distance(a, b) == pytest.approx(0.5 * (2 / 3 + (1 / 6) ** 2 / (5 / 6) + 1 / 2))
    assert label_distance(a, a) == 0.0
    assert label_distance(a, np.array([[0, 0, 1]], np.bool_)) == pytest.approx(1.0)
