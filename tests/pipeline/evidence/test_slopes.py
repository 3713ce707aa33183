from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from citycover.evidence.comparison import Comparison
from citycover.evidence.slopes import EvidenceCounts

CLASSES = 3
PRIOR = (0.2, 0.3, 0.5)


def evidence_and_labels(
    slope: float, noise: float = 0.0, seed: int = 0, pixels: int = 40_000
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What a network says of class 0, and labels of which class 0 follows it by a slope."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(-0.5, 0.6, pixels)
    probabilities = np.full((CLASSES, pixels), 0.1, np.float32)
    probabilities[0] = PRIOR[0] * np.exp(evidence)
    labels = np.where(rng.random(pixels) < expit(slope * evidence - 0.7), 0, 1)
    wrong = rng.random(pixels) < noise
    return probabilities, np.where(wrong, rng.permutation(labels), labels)


def slopes_of(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], noise: float = 0.0, cell: float = 1.0
) -> tuple[float, ...]:
    counts = EvidenceCounts(PRIOR)
    for piece in np.array_split(np.arange(labels.size), 7):
        counts.add(probabilities[:, piece], labels[piece])
    return counts.slopes(noise, cell)


@settings(max_examples=15, deadline=None)
@given(slope=st.floats(-1, 2), seed=st.integers(0, 99))
def test_a_planted_slope_is_found_and_bounded(slope: float, seed: int) -> None:
    found = slopes_of(*evidence_and_labels(slope, seed=seed))[0]
    assert found == pytest.approx(min(1, max(0, slope)), abs=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
def test_noise_of_labels_is_not_laid_to_the_network(noise: float) -> None:
    """Taken for clean, noisy labels would say that it overstates."""
    given_ = evidence_and_labels(0.8, noise)
    assert slopes_of(*given_, noise=noise)[0] == pytest.approx(0.8, abs=0.12)
    assert slopes_of(*given_)[0] <= slopes_of(*given_, noise=noise)[0]


def test_the_slope_is_that_of_a_logistic_regression_less_its_error() -> None:
    probabilities, labels = evidence_and_labels(0.6)
    evidence = np.log(probabilities[0] / PRIOR[0])[:, None]
    oracle = LogisticRegression(C=1e6).fit(evidence, labels == 0)
    chance = oracle.predict_proba(evidence)[:, 1]
    terms = np.hstack([evidence, np.ones_like(evidence)])
    error = np.linalg.inv((terms.T * (chance * (1 - chance))) @ terms)[0, 0] ** 0.5
    assert slopes_of(probabilities, labels)[0] == pytest.approx(oracle.coef_[0, 0] - 1.28 * error, abs=0.01)
    counts = EvidenceCounts(PRIOR)
    counts.add(probabilities, labels)
    likely = (oracle.coef_[0, 0], oracle.intercept_[0])
    assert counts.odds(0.0, 1.0)[0] == pytest.approx(likely, abs=0.01)


def test_a_handful_of_labels_does_not_show_that_a_class_is_known() -> None:
    probabilities, labels = evidence_and_labels(1.5)
    rare = np.flatnonzero(labels == 0)[4:]  # four are left of it
    few = np.where(np.isin(np.arange(labels.size), rare), 1, labels)
    assert slopes_of(probabilities, labels)[0] == 1
    assert slopes_of(probabilities, few)[0] < 0.3


def test_a_network_must_show_what_it_knows() -> None:
    """Half a cell of pixels that happen to bear it out is not enough."""
    probabilities, labels = evidence_and_labels(1.5, pixels=400)
    assert slopes_of(probabilities, labels)[0] > 0.9
    assert slopes_of(probabilities, labels, cell=800)[0] < 0.5


def test_a_class_without_a_label_has_shown_nothing() -> None:
    probabilities, labels = evidence_and_labels(0.5)
    assert slopes_of(probabilities, labels)[2] == 0  # class 2 has no label
    assert slopes_of(probabilities, np.full_like(labels, -1)) == (0, 0, 0)
    assert slopes_of(probabilities, np.zeros_like(labels))[0] == 1  # and class 0 every one


def test_labels_of_classes_that_the_network_cannot_tell_apart_are_no_noise() -> None:
    """It never learned class 2 and says class 1 with all its heart where that is: no fault of the labels."""
    rng = np.random.default_rng(0)
    truth = rng.choice(CLASSES, 30_000, p=PRIOR)
    probabilities = np.full((CLASSES, truth.size), 0.02, np.float32)
    probabilities[np.minimum(truth, 1), np.arange(truth.size)] = 0.96
    probabilities[2] = 0.02 * np.exp(rng.normal(0, 0.5, truth.size))
    comparison = Comparison(PRIOR, 1.0)
    comparison.add(probabilities, truth)
    assert comparison.slopes(0.0)[2] < 0.1
    assert comparison.noise().share < 0.1
