from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax

from citycover.evidence.noise import Contradictions, LabelNoise

CLASSES = 4


def network_and_truth(seed: int = 0, pixels: int = 60_000) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Calibrated probabilities, and a truth that is drawn from them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(0, 3, (CLASSES, pixels)), 0)
    drawn = (probabilities.cumsum(0) < rng.random(pixels)).sum(0)
    return probabilities.astype(np.float32), np.minimum(drawn, CLASSES - 1)


def plant(truth: NDArray[np.int64], share: float, seed: int = 1) -> NDArray[np.int64]:
    """Labels of which a share is wrong."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(truth.shape) < share
    return np.where(wrong, (truth + rng.integers(1, CLASSES, truth.shape)) % CLASSES, truth)


def measured(probabilities: NDArray[np.float32], labels: NDArray[np.int64], parts: int = 1) -> LabelNoise:
    counts = Contradictions(CLASSES)
    for piece in np.array_split(np.arange(labels.size), parts):
        counts.add(probabilities[:, piece], labels[piece])
    return counts.noise(pixels_per_cell=4)


def test_planted_noise_is_found() -> None:
    probabilities, truth = network_and_truth()
    for share in (0.0, 0.05, 0.1, 0.2, 0.4):
        assert measured(probabilities, plant(truth, share)).share == pytest.approx(share, abs=0.01)


@settings(max_examples=20, deadline=None)
@given(one=st.floats(0, 0.5), more=st.floats(0.03, 0.3), seed=st.integers(0, 99))
def test_more_noise_measures_more(one: float, more: float, seed: int) -> None:
    probabilities, truth = network_and_truth(seed)
    assert (
        measured(probabilities, plant(truth, one)).share
        < measured(probabilities, plant(truth, one + more)).share
    )


def test_counts_in_pieces_are_those_of_the_whole() -> None:
    probabilities, truth = network_and_truth(pixels=5_000)
    labels = plant(truth, 0.2)
    labels[:100] = -1
    assert measured(probabilities, labels, parts=13) == measured(probabilities, labels)


def test_the_share_is_that_of_sorting_by_confidence() -> None:
    """Brute force: sort, take a twentieth of each predicted class, weight by the shares of the labels."""
    probabilities, truth = network_and_truth(pixels=40_000)
    labels = plant(truth, 0.15)
    best, shares = probabilities.argmax(0), np.bincount(labels, minlength=CLASSES) / labels.size
    wanted = 0.0
    for k in range(CLASSES):
        mine = np.flatnonzero(best == k)
        surest = mine[np.argsort(-probabilities[k, mine])][: round(0.05 * mine.size)]
        wanted += shares[k] * float((labels[surest] != k).mean())
    assert measured(probabilities, labels).share == pytest.approx(wanted, abs=0.005)


def test_too_few_cells_measure_nothing() -> None:
    few, many = LabelNoise(0.3, 999), LabelNoise(0.3, 1000)
    assert few.believed == 0
    assert "999 labelled cells are too few" in str(few)
    assert many.believed == 0.3
    assert str(many) == "labels: 30 % contradicted where the network is surest; trusted accordingly"


def test_cells_are_counted_not_pixels() -> None:
    probabilities, truth = network_and_truth(pixels=4_000)
    truth[:1000] = -1
    assert measured(probabilities, truth).cells == 750


def test_nothing_to_compare_is_no_noise() -> None:
    probabilities, truth = network_and_truth(pixels=100)
    assert measured(probabilities, np.full_like(truth, -1)) == LabelNoise(0.0, 0.0)
