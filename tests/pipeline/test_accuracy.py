from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from making import make_legend
from sklearn import metrics

from citycover.accuracy import Confusion, compare_rasters, confusion_of


def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 5, (80, 90))  # class 5 never occurs
    mapped = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(1, 5, truth.shape))
    return truth, mapped


def test_metrics_agree_with_scikit_learn() -> None:
    truth, mapped = pair()
    found = confusion_of(truth, mapped, make_legend())
    a, b, names = truth.ravel(), mapped.ravel(), [1, 2, 3, 4]
    np.testing.assert_array_equal(found.counts[:4, :4], metrics.confusion_matrix(a, b, labels=names))
    assert found.overall_accuracy == pytest.approx(metrics.accuracy_score(a, b))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(a, b))
    assert found.miou == pytest.approx(metrics.jaccard_score(a, b, average="macro"))
    assert found.mean_class_recall == pytest.approx(metrics.balanced_accuracy_score(a, b))
    for ours, theirs in (
        (found.f1, metrics.f1_score(a, b, average=None)),
        (found.users_accuracy, metrics.precision_score(a, b, average=None)),
        (found.producers_accuracy, metrics.recall_score(a, b, average=None)),
        (found.iou, metrics.jaccard_score(a, b, average=None)),
    ):
        np.testing.assert_allclose(ours[:4], theirs)
        assert np.isnan(ours[4])


def test_matrices_add_up_and_nodata_is_left_out() -> None:
    truth, mapped = pair()
    truth[:10] = 0
    mapped[:, :5] = 0
    whole = confusion_of(truth, mapped, make_legend())
    halves = confusion_of(truth[:40], mapped[:40], make_legend()) + confusion_of(
        truth[40:], mapped[40:], make_legend()
    )
    np.testing.assert_array_equal(whole.counts, halves.counts)
    assert whole.counts.sum() == 70 * 85


def test_nothing_to_compare_is_not_a_number() -> None:
    empty = Confusion(np.zeros((3, 3), np.int64))
    assert np.isnan([empty.overall_accuracy, empty.miou, empty.kappa]).all()


def test_a_coarse_raster_is_compared_at_the_pixels_of_the_truth(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(1, 4, (8, 9), np.uint8)
    fine = coarse.repeat(10, 0).repeat(10, 1)
    for name, values, size in (("coarse", coarse, 10), ("fine", fine, 1)):
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", height=values.shape[0], width=values.shape[1],
            count=1, dtype="uint8", crs="EPSG:32633",
            transform=Affine(size, 0, 5e5, 0, -size, 5.8e6), nodata=0,
        ) as dataset:  # fmt: skip
            dataset.write(values, 1)
    table = {1: 2, 2: 1, 3: 3}
    found = compare_rasters(tmp_path / "coarse.tif", tmp_path / "fine.tif", make_legend(), table, table)
    assert found.overall_accuracy == 1 and found.counts.sum() == fine.size


def test_kappa_of_a_whole_country_does_not_overflow() -> None:
    small = Confusion(np.array([[40, 10], [5, 45]]))
    assert Confusion(small.counts * 10**9).kappa == pytest.approx(small.kappa)
