"""Classes merged before and after the decision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (gives arrays the accessor `rio`)
import xarray as xr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from citycover.classes.table import NO_CLASS
from citycover.errors import ConfigError
from citycover.evaluate.decide import decide, merge_probabilities, write_decided

# Water, deciduous and coniferous forest, snow; forests merge, snow is dropped.
RANKS = np.array([0, 1, 1, NO_CLASS], np.int16)
TRANSFORM = Affine(1, 0, 5e5, 0, -1, 5.8e6)


def probabilities(shape: tuple[int, int] = (30, 20)) -> np.ndarray:
    logits = np.random.default_rng(0).normal(size=(4, *shape))
    p = np.exp(logits) / np.exp(logits).sum(0)
    p[:, 3, 4] = [0.4, 0.3, 0.3, 0.0]
    p[:, 5, 6] = [0.1, 0.3, 0.1, 0.5]
    p[:, 7] = 0
    return p.astype(np.float32)


def test_the_order_of_merging_and_deciding_matters() -> None:
    p = probabilities()
    first, last = (decide(p, RANKS, 2, merge) for merge in ("first", "last"))
    assert (first[3, 4], last[3, 4]) == (1, 0), "two forests win together, none alone"
    assert (first[5, 6], last[5, 6]) == (1, NO_CLASS), "what is dropped is out of the race, or wins it"
    assert (first[7] == NO_CLASS).all() and (last[7] == NO_CLASS).all(), "nothing is known there"
    assert (first != last).mean() > 0.1


def test_merged_probabilities_are_sums() -> None:
    p = probabilities()
    merged = merge_probabilities(p, RANKS, 2)
    np.testing.assert_allclose(merged, [p[0], p[1] + p[2]])
    whole = merge_probabilities((p * 255).round().astype(np.uint8), RANKS, 2)
    assert whole.max() > 255 or whole[1].max() > 200, "bytes do not wrap"


def test_without_merging_the_order_is_the_same() -> None:
    p, same = probabilities(), np.arange(4, dtype=np.int16)
    np.testing.assert_array_equal(decide(p, same, 4, "first"), decide(p, same, 4, "last"))


def write_raster(path: Path, p: np.ndarray, nodata: int | None = None) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=p.shape[1], width=p.shape[2], count=len(p), dtype=p.dtype.name,
        crs="EPSG:32633", transform=TRANSFORM, nodata=nodata,
        **({} if nodata is None else {"alpha": "no"}),
    ) as dataset:  # fmt: skip
        dataset.write(p)
    return path


def write_zarr(path: Path, p: np.ndarray, nodata: int | None = None) -> Path:
    y, x = 5.8e6 - 0.5 - np.arange(p.shape[1]), 5e5 + 0.5 + np.arange(p.shape[2])
    array = xr.DataArray(p, dims=("class", "y", "x"), coords={"y": y, "x": x}).rio.write_crs("EPSG:32633")
    if nodata is not None:
        array = array.rio.write_nodata(nodata)
    array.to_dataset(name="probabilities").to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.mark.parametrize("write", [write_raster, write_zarr])
@pytest.mark.parametrize("strip", [40, 2**24])
def test_a_file_is_decided_on_in_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, strip: int
) -> None:
    monkeypatch.setattr("citycover.evaluate.decide._STRIP_VALUES", strip)
    p = (probabilities() * 255).round().astype(np.uint8)
    source = write(tmp_path / "p", p)
    write_decided(source, tmp_path / "out.tif", RANKS, 2, "first")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.crs.to_epsg(), dataset.transform, dataset.nodata) == (32633, TRANSFORM, NO_CLASS)
        np.testing.assert_array_equal(dataset.read(1), decide(p, RANKS, 2, "first"))


@pytest.mark.parametrize("write", [write_raster, write_zarr])
@pytest.mark.parametrize("merge", ["first", "last"])
def test_nodata_is_no_probability(tmp_path: Path, write: Any, merge: Any) -> None:
    p = (probabilities() * 254).round().astype(np.uint8)
    filled = p.copy()
    p[:, 10:14, 2:9], filled[:, 10:14, 2:9] = 0, 255
    write_decided(write(tmp_path / "p", filled, 255), tmp_path / "out.tif", RANKS, 2, merge)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found = dataset.read(1)
    np.testing.assert_array_equal(found, decide(p, RANKS, 2, merge))
    assert (found[10:14, 2:9] == NO_CLASS).all()


def test_another_number_of_bands_or_no_such_file_is_refused(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "p.tif", probabilities())
    with pytest.raises(ConfigError, match="has 4 bands and the map's legend 3"):
        write_decided(source, tmp_path / "out.tif", RANKS[:3], 2, "last")
    with pytest.raises(ConfigError, match="cannot be read"):
        write_decided(tmp_path / "no.tif", tmp_path / "out.tif", RANKS, 2, "last")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ConfigError, match="no Zarr with an array"):
        write_decided(tmp_path / "empty.zarr", tmp_path / "out.tif", RANKS, 2, "last")


ranks_of_five = st.lists(st.integers(NO_CLASS, 2), min_size=5, max_size=5).map(
    lambda r: np.array(r, np.int16)
)
scores = arrays(np.uint8, (5, 3, 4))


@given(scores, ranks_of_five)
def test_merging_keeps_what_is_not_dropped(p: np.ndarray, ranks: np.ndarray) -> None:
    merged = merge_probabilities(p, ranks, 3)
    np.testing.assert_array_equal(merged.sum(0), p[ranks >= 0].astype(int).sum(0))
    wanted = [sum((p[k].astype(int) for k in np.flatnonzero(ranks == c)), np.zeros((3, 4))) for c in range(3)]
    np.testing.assert_array_equal(merged, wanted)


@given(scores, ranks_of_five)
def test_deciding_last_is_the_class_of_the_largest(p: np.ndarray, ranks: np.ndarray) -> None:
    decided = decide(p, ranks, 3, "last")
    for place in np.ndindex(3, 4):
        best = max(range(5), key=lambda k: (p[k][place], -k))
        assert decided[place] == (ranks[best] if p[best][place] > 0 else NO_CLASS)
