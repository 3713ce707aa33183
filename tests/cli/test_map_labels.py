"""`citycover map --labels`: the same map by workers, and every bad input with its message."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from labelled import write_labelled_city
from labelling import BAD_LABELS, changed


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_city(tmp_path_factory.mktemp("city"), 300)


def read(out: Path) -> np.ndarray:
    with rasterio.open(out / "landcover.tif") as product:
        return product.read(1)


def test_workers_make_the_same_map(citycover, city: Path, tmp_path: Path) -> None:
    given = ("map", city / "image.tif", "--model", city / "model.pt", "--labels", city / "labels_10m.tif",
             "--window", 128, "--precision", "fp32", "--batch", 1)  # fmt: skip
    alone = citycover(*given, "-o", tmp_path / "alone")
    assert alone.code == 0, alone.err
    told = r"with labels, 100% trusted \(\d{3} labelled cells are too few to measure their noise\)"
    assert re.search(told, alone.out)
    by_two = citycover(*given, "-o", tmp_path / "two", "--workers", 2)
    assert by_two.code == 0, by_two.err
    np.testing.assert_array_equal(read(tmp_path / "two"), read(tmp_path / "alone"))


def test_a_map_without_labels_says_so_and_advises_what_its_model_can_do(
    citycover, city: Path, tmp_path: Path
) -> None:
    given = ("map", city / "image.tif", "--window", 128)
    rules = citycover(*given, "-o", tmp_path / "rules")
    assert "extrapolating: the image alone; citycover sharpen" in rules.out
    refused = citycover(*given, "-o", tmp_path / "refused", "--labels", city / "labels_10m.tif")
    assert refused.code == 2 and "citycover sharpen" in refused.err
    network = citycover(*given, "-o", tmp_path / "network", "--model", city / "model.pt")
    assert "extrapolating: the image alone; give --labels" in network.out


BAD = BAD_LABELS | {
    "another legend": ({}, ("--labels-legend", "nlcd"), "hold ids that legend 'nlcd' does not have: 1 ("),
    "too fine": ({"transform": Affine(0.2, 0, 392_000, 0, -0.2, 6_000_000)}, (), "finer than the pixels"),
    "trust": ({}, ("--trust", "much"), "--trust takes auto or a number from 0 to 1, got 'much'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_labels_end_with_a_message(citycover, city: Path, tmp_path: Path, name: str) -> None:
    changes, more, message = BAD[name]
    labels = changed(city, tmp_path / "labels.tif", **changes)
    result = citycover("map", city / "image.tif", "--model", city / "model.pt", "-o", tmp_path / "out",
                       "--labels", labels, *more)  # fmt: skip
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_a_model_must_know_what_labels_need(citycover, city: Path, tmp_path: Path) -> None:
    result = citycover("map", city / "image.tif", "--labels", city / "labels_10m.tif", "-o", tmp_path / "out",
                       "--labels-legend", "city")  # fmt: skip
    assert result.code == 2
    assert "has no trained_prior" in result.err


def test_trust_without_labels_is_refused(citycover, city: Path, tmp_path: Path) -> None:
    result = citycover("map", city / "image.tif", "--trust", "0.9", "-o", tmp_path / "out")
    assert result.code == 2
    assert "name label files with it" in result.err


def test_plan_says_how_far_labels_are_trusted(citycover, city: Path) -> None:
    given = ("plan", city / "image.tif", "--model", city / "model.pt", "--labels", city / "labels_10m.tif",
             "--trust", 0.9, "--window", 128)  # fmt: skip
    assert "with labels, 90% trusted" in citycover(*given).out
    assert "with labels" in citycover(*given, "--no-probe").out
    assert "extrapolating" in citycover(*given[:4], "--no-probe").out
