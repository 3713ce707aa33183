"""Stratified samples of a raster: how many points where, and that they lie where they say."""

from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from making import make_legend

from citycover.classes import raster
from citycover.errors import ConfigError
from citycover.evaluate.points import write_sample
from citycover.evaluate.sample import ALLOCATIONS, Allocation, allocate, count_strata, draw_sample

LEGEND = make_legend()
TRANSFORM = Affine(3, 0, 5e5, 0, -3, 5.8e6)


@pytest.fixture
def class_map(tmp_path: Path) -> tuple[Path, np.ndarray]:
    rng = np.random.default_rng(0)
    values = rng.choice([0, 1, 2, 3, 5], (120, 90), p=[0.1, 0.6, 0.2, 0.09, 0.01]).astype(np.uint8)
    path = tmp_path / "map.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=120, width=90, count=1, dtype="uint8", crs="EPSG:32633",
        transform=TRANSFORM, nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return path, values


@settings(max_examples=25)
@given(
    st.dictionaries(st.integers(0, 9), st.integers(1, 5000), min_size=1),
    st.integers(1, 3000),
    st.sampled_from(ALLOCATIONS),
)
def test_an_allocation_gives_all_points_within_bounds(
    pixels: dict[int, int], points: int, how: Allocation
) -> None:
    least = {s: min(n, 50 if how == "olofsson" else 2) for s, n in pixels.items()}
    if not sum(least.values()) <= points <= sum(pixels.values()):
        with pytest.raises(ConfigError, match="at least"):
            allocate(pixels, points, how)
        return
    given_ = allocate(pixels, points, how)
    assert sum(given_.values()) == points
    assert all(least[s] <= given_[s] <= pixels[s] for s in pixels)
    if all(least[s] < given_[s] < n for s, n in pixels.items()):  # no bound was met: shares to the point
        weights = dict.fromkeys(pixels, 1) if how == "equal" else pixels
        for s, weight in weights.items():
            assert abs(given_[s] - points * weight / sum(weights.values())) < len(pixels)


def test_points_lie_at_centres_of_pixels_of_their_stratum(class_map: tuple[Path, np.ndarray]) -> None:
    path, values = class_map
    pixels = count_strata(path, LEGEND)
    assert pixels == {i: int((values == i).sum()) for i in (1, 2, 3, 5)}
    sample = draw_sample(path, LEGEND, pixels, 400, "olofsson")
    cols, rows = ~TRANSFORM * (sample.x, sample.y)
    np.testing.assert_allclose([rows % 1, cols % 1], 0.5)
    np.testing.assert_array_equal(values[rows.astype(int), cols.astype(int)], sample.strata)
    assert len({*zip(rows, cols, strict=True)}) == 400, "no pixel twice"
    x, y = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(sample.lon, sample.lat)
    np.testing.assert_allclose([x, y], [sample.x, sample.y], atol=1e-4)
    assert sample.pixel_ha == pytest.approx(9e-4, rel=2e-3)


def test_the_same_seed_draws_the_same_points_in_strips_of_any_height(
    class_map: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = count_strata(class_map[0], LEGEND)
    one, other = (draw_sample(class_map[0], LEGEND, pixels, 50, seed=s).rows() for s in (1, 2))
    monkeypatch.setattr(raster, "_STRIP_PIXELS", 300)
    assert draw_sample(class_map[0], LEGEND, pixels, 50, seed=1).rows() == one != other


def test_every_pixel_of_a_stratum_is_as_likely_as_any_other(class_map: tuple[Path, np.ndarray]) -> None:
    path, values = class_map
    pixels = count_strata(path, LEGEND)
    drawn = np.zeros(values.shape, int)
    for seed in range(60):
        sample = draw_sample(path, LEGEND, pixels, 1500, "equal", seed)
        cols, rows = ~TRANSFORM * (sample.x, sample.y)
        np.add.at(drawn, (rows.astype(int), cols.astype(int)), 1)
    share = sample.allocation[1] / pixels[1]
    of_one = drawn[values == 1]
    assert of_one.mean() == pytest.approx(60 * share)
    assert of_one.var() == pytest.approx(60 * share * (1 - share), rel=0.1), "as binomial draws spread"
    assert drawn[values == 0].max() == 0


def test_a_whole_stratum_can_be_drawn(class_map: tuple[Path, np.ndarray]) -> None:
    path, values = class_map
    pixels = count_strata(path, LEGEND)
    sample = draw_sample(path, LEGEND, pixels, sum(pixels.values()))
    assert sample.allocation == pixels and len(sample.strata) == (values > 0).sum()


def test_maps_without_a_crs_classes_or_the_legend_are_refused(tmp_path: Path) -> None:
    def write(name: str, value: int, crs: str | None) -> Path:
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8", crs=crs,
            transform=TRANSFORM, nodata=0,
        ) as dataset:  # fmt: skip
            dataset.write(np.full((9, 9), value, np.uint8), 1)
        return tmp_path / name

    with pytest.raises(ConfigError, match="no CRS"):
        draw_sample(write("a.tif", 1, None), LEGEND, {1: 81}, 10)
    with pytest.raises(ConfigError, match="no pixel of a class"):
        count_strata(write("b.tif", 0, "EPSG:32633"), LEGEND)
    with pytest.raises(ConfigError, match=r"60 \(81 px\).*worldcover.*--map-legend"):
        count_strata(write("c.tif", 60, "EPSG:32633"), LEGEND)


def test_points_are_written_by_ending_only(class_map: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    sample = draw_sample(class_map[0], LEGEND, count_strata(class_map[0], LEGEND), 20)
    with pytest.raises(ConfigError, match=r"\.geojson or .*\.csv"):
        write_sample(sample, tmp_path / "points.shp")
