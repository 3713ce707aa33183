"""Confidence against the truth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapped import patchy, write_product
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from citycover.errors import ConfigError
from citycover.evaluate.evaluate import evaluate
from citycover.evaluate.reliability import Reliability
from citycover.evaluate.request import EvaluationRequest

CLASSES = patchy((60, 80))
TRUTH = patchy((60, 80), seed=5)


def made(seed: int) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    ranks = rng.integers(-1, 3, (2, 400)).astype(np.int16)
    return ranks[0], ranks[1], rng.integers(0, 256, 400).astype(np.uint8)


@given(st.integers(0, 10**6), st.integers(0, 400))
def test_two_parts_add_up(seed: int, cut: int) -> None:
    whole = Reliability.of(*made(seed))
    parts = Reliability.of(*(v[:cut] for v in made(seed))) + Reliability.of(*(v[cut:] for v in made(seed)))
    for name in ("counts", "hits", "sums"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert 0 <= whole.expected_calibration_error <= 1


def test_the_curve_is_that_of_scikit_learn() -> None:
    truth, mapped, steps = made(3)
    steps = np.where(steps % 51, steps, 7)  # on an edge of two bins it takes the lower one
    seen = (truth >= 0) & (mapped >= 0) & (steps > 0)
    right, said = calibration_curve(truth[seen] == mapped[seen], steps[seen] / 255, n_bins=10)
    bins = Reliability.of(truth, mapped, steps).report()["bins"]
    assert [one["right"] for one in bins] == pytest.approx(right.tolist())
    assert [one["confidence"] for one in bins] == pytest.approx(said.tolist())
    assert sum(one["pixels"] for one in bins) == seen.sum()


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write_product(
        tmp_path / "product", CLASSES, np.where(CLASSES > 0, 50 * CLASSES, 0).astype(np.uint8)
    )


def expected() -> Reliability:
    ranks = (np.where(v > 0, v.astype(np.int16) - 1, -1) for v in (TRUTH, CLASSES))
    return Reliability.of(*ranks, 50 * CLASSES)  # type: ignore[call-arg]


def test_a_product_is_held_against_a_raster(product: Path, tmp_path: Path) -> None:
    truth = write_product(tmp_path / "truth", TRUTH)
    found = evaluate(EvaluationRequest(mapped=product, truth=truth))
    assert found.report()["reliability"] == expected().report()
    assert found.report()["reliability"]["bins"][-1]["from"] == 0.9


def test_a_product_is_held_against_points(product: Path, tmp_path: Path) -> None:
    rows, cols = np.mgrid[0:60, 0:80]
    lines = ["x,y,class"]
    for row, col in zip(rows.ravel().tolist(), cols.ravel().tolist(), strict=True):
        if TRUTH[row, col]:
            lines.append(f"{5e5 + 2 * col + 1},{5.8e6 - 2 * row - 1},{TRUTH[row, col]}")
    (tmp_path / "points.csv").write_text("\n".join(lines))
    found = evaluate(EvaluationRequest(mapped=product, truth=tmp_path / "points.csv"))
    assert found.kind == "points" and found.report()["reliability"] == expected().report()
    with pytest.raises(ConfigError, match="holds points; leave it out"):
        evaluate(EvaluationRequest(mapped=product, truth=tmp_path / "points.csv", elsewhere="class 1"))


def test_a_raster_without_confidence_has_none(product: Path, tmp_path: Path) -> None:
    truth = write_product(tmp_path / "truth", TRUTH)
    (product / "confidence.tif").unlink()
    assert evaluate(EvaluationRequest(mapped=product, truth=truth)).report()["reliability"] is None


@pytest.mark.parametrize("option", ["map_legend", "legend"])
def test_a_product_is_in_no_legend_but_its_own(product: Path, tmp_path: Path, option: str) -> None:
    truth = write_product(tmp_path / "truth", TRUTH)
    with pytest.raises(ConfigError, match=rf"leave --{option.replace('_', '-')} out"):
        evaluate(EvaluationRequest(mapped=product, truth=truth, **{option: "dynamic-world"}))
