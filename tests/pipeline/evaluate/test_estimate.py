"""Estimates from stratified samples, against the worked example of Olofsson et al. (2014), section 5."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_legend

from citycover.errors import ConfigError
from citycover.evaluate.estimate import Estimate, StratifiedSample, sample_size

# Rows: map; columns: reference. Deforestation, forest gain, stable forest, stable non-forest.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = [200_000, 150_000, 3_200_000, 6_450_000]
PIXEL_HA = 0.09


@pytest.fixture
def paper() -> StratifiedSample:
    return StratifiedSample.of_matrix(COUNTS, MAPPED)


def printed(estimates: tuple[Estimate, ...]) -> list[tuple[float, float]]:
    return [(round(e.value, 2), round(e.margin, 2)) for e in estimates]


def test_accuracies_of_the_papers_example(paper: StratifiedSample) -> None:
    assert printed((paper.overall_accuracy,)) == [(0.95, 0.02)]
    assert printed(paper.users_accuracy) == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    # The margins quoted from the paper are 0.21, 0.23, 0.03 and 0.01. Its eq. 7 on its own table gives 0.25
    # for forest gain and 0.02 for stable non-forest, here as in `olofsson` below, written from the paper.
    assert printed(paper.producers_accuracy) == [(0.75, 0.21), (0.85, 0.25), (0.93, 0.03), (0.96, 0.02)]


def test_proportions_and_areas_of_the_papers_example(paper: StratifiedSample) -> None:
    np.testing.assert_array_equal(
        paper.proportions.round(4),
        [
            [0.0176, 0, 0.0013, 0.0011],
            [0, 0.0110, 0.0016, 0.0024],
            [0.0019, 0, 0.2967, 0.0213],
            [0.0040, 0.0020, 0.0179, 0.6212],
        ],
    )
    total = sum(MAPPED)
    deforestation = paper.areas[0]
    assert round(deforestation.value * total) == 235_086
    assert round(deforestation.value * total * PIXEL_HA) == 21_158
    assert round(deforestation.standard_error, 4) == 0.0035
    assert round(deforestation.margin * total) == 68_418
    assert round((deforestation * (total * PIXEL_HA)).margin) == 6158


def test_sample_size_of_the_papers_example() -> None:
    assert sample_size([0.02, 0.015, 0.32, 0.645], [0.7, 0.6, 0.9, 0.95], 0.01) == 641


def olofsson(counts: np.ndarray, mapped: np.ndarray) -> dict[str, np.ndarray]:
    """Variances as the paper writes them: eqs. 5, 6, 7 and 10."""
    n, w = counts.sum(1), mapped / mapped.sum()
    hits = np.diag(counts)
    u = hits / n
    p = w[:, None] * counts / n[:, None]
    column = (mapped[:, None] * counts / n[:, None]).sum(0)
    producers = np.diag(p) / p.sum(0)
    rest = mapped[:, None] ** 2 * counts / n[:, None] * (1 - counts / n[:, None]) / (n - 1)[:, None]
    others = np.where(np.eye(len(n), dtype=bool), 0, rest).sum(0)
    return {
        "overall": np.sqrt((w**2 * u * (1 - u) / (n - 1)).sum()),
        "users": np.sqrt(u * (1 - u) / (n - 1)),
        "producers": np.sqrt(
            (mapped**2 * (1 - producers) ** 2 * u * (1 - u) / (n - 1) + producers**2 * others) / column**2
        ),
        "areas": np.sqrt(((w[:, None] * p - p**2) / (n - 1)[:, None]).sum(0)),
    }


@settings(max_examples=25)
@given(
    st.integers(2, 5).flatmap(
        lambda k: st.tuples(
            st.lists(st.lists(st.integers(1, 40), min_size=k, max_size=k), min_size=k, max_size=k),
            st.lists(st.integers(1000, 10**9), min_size=k, max_size=k),
        )
    )
)
def test_ratios_are_the_papers_equations_where_strata_are_map_classes(
    given_: tuple[list[list[int]], list[int]],
) -> None:
    counts, mapped = np.array(given_[0]), np.array(given_[1], np.float64)
    sample, expected = StratifiedSample.of_matrix(counts, list(mapped)), olofsson(counts, mapped)
    assert sample.overall_accuracy.standard_error == pytest.approx(float(expected["overall"]))
    for ours, name in (
        (sample.users_accuracy, "users"),
        (sample.producers_accuracy, "producers"),
        (sample.areas, "areas"),
    ):
        np.testing.assert_allclose([e.standard_error for e in ours], expected[name], rtol=1e-9)
    assert sum(e.value for e in sample.areas) == pytest.approx(1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """A map of two strata that are not its classes: 95 % of 400 samples hold the true area."""
    rng = np.random.default_rng(0)
    p = np.array([[[0.7, 0.1], [0.05, 0.15]], [[0.1, 0.1], [0.2, 0.6]]])  # (stratum, map, reference)
    sizes = np.array([3e6, 1e6])
    truth = float((sizes / sizes.sum()) @ p[:, :, 0].sum(1))
    held = 0
    for _ in range(400):
        cube = np.stack([rng.multinomial(150, q.ravel()).reshape(2, 2) for q in p])
        area = StratifiedSample(cube, sizes, ["a", "b"]).areas[0]
        held += abs(area.value - truth) <= area.margin
    assert 0.92 <= held / 400 <= 0.98


def test_what_one_point_cannot_tell_is_none_and_a_census_is_certain() -> None:
    alone = StratifiedSample.of_matrix(np.array([[1, 0], [3, 7]]), [500, 500])
    assert math.isnan(alone.overall_accuracy.standard_error)
    report = alone.report(make_legend(2), 10.0)
    assert report["overall_accuracy"]["standard_error"] is None
    assert alone.users_accuracy[1].standard_error > 0, "the other class hangs on its own points"
    assert math.isnan(alone.users_accuracy[0].standard_error)
    assert math.isnan(alone.producers_accuracy[1].standard_error)
    census = StratifiedSample.of_matrix(np.array([[1, 0], [3, 7]]), [1, 10])
    assert census.overall_accuracy.standard_error == 0


def test_a_class_that_does_not_occur_has_no_accuracy_and_no_area() -> None:
    sample = StratifiedSample.of_matrix(np.array([[5, 0], [0, 0]]), [100, 0])
    assert math.isnan(sample.users_accuracy[1].value)
    assert sample.areas[1].value == 0


def test_a_stratum_without_points_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"class 2 \(300 px\)"):
        StratifiedSample.of_matrix(np.array([[5, 1], [0, 0]]), [100, 300])


@pytest.mark.parametrize(("error", "expected"), [(0.0, 0.8), (1.5, 0.8), (0.01, 1.2)])
def test_sample_size_refuses_what_is_no_share(error: float, expected: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        sample_size([1.0], [expected], error)
