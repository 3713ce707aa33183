import numpy as np
import pytest
from scores import near_edges, pooled, score
from sklearn.metrics import accuracy_score, f1_score, jaccard_score


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(-1, 4, (200, 150))
    mapped = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(-1, 4, truth.shape))
    both = (truth >= 0) & (mapped >= 0)
    found = score(mapped, truth, 4)
    assert found.accuracy == pytest.approx(accuracy_score(truth[both], mapped[both]))
    assert found.miou == pytest.approx(jaccard_score(truth[both], mapped[both], average="macro"))
    assert found.f1 == pytest.approx(f1_score(truth[both], mapped[both], average="macro"))
    assert found.big == found.miou and np.isnan(found.ece)


def test_a_rare_class_counts_in_the_mean_and_not_among_the_big() -> None:
    truth = np.zeros((400, 400), int)
    truth[:100] = 1
    truth[-1, :250] = 2
    found = score(np.where(truth == 2, 0, truth), truth, 4)
    assert found.big > 0.99 and found.miou == pytest.approx(2 / 3, abs=0.01)
    assert np.isnan(found.iou[3]) and found.iou[2] == 0


def test_confidence_that_says_how_often_it_is_right_is_calibrated() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.random((300, 300))
    truth = np.zeros(confidence.shape, int)
    mapped = (rng.random(confidence.shape) > confidence).astype(int)
    assert score(mapped, truth, 2, confidence=confidence).ece < 0.02
    sure = score(mapped, truth, 2, confidence=np.ones_like(confidence))
    assert sure.ece == pytest.approx(sure.over) == pytest.approx(1 - sure.accuracy)


def test_edges_are_near_within_one_cell() -> None:
    coarse = np.zeros((40, 40), int)
    coarse[:, 20:] = 1
    near = near_edges(coarse, 4)
    assert near[:, 16:24].all() and not near[:, :16].any() and not near[:, 24:].any()


def test_places_counted_as_one_are_one_long_place() -> None:
    rng = np.random.default_rng(3)
    truth, mapped = rng.integers(0, 3, (2, 40, 50)), rng.integers(0, 4, (2, 40, 50))
    whole = score(mapped.reshape(80, 50), truth.reshape(80, 50), 4)
    parts = sum(np.array(score(m, t, 4).row()["pixels"]) for m, t in zip(mapped, truth, strict=True))
    assert pooled(np.asarray(parts)) == pytest.approx((whole.miou, whole.accuracy))
