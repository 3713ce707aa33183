"""`--change`: a lake that labels do not know is found, by one process as by two, and said on the product."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from labelled import write_labelled_city

LAKE = np.s_[60:170, 80:190]
"""Pixels of the image that were flooded since the labels were made."""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A practice city with a lake that its labels do not know."""
    folder = write_labelled_city(tmp_path_factory.mktemp("city"), 300)
    with rasterio.open(folder / "image.tif", "r+") as image:
        values = image.read()
        values[:, *LAKE] = np.array([30, 50, 60, 8])[:, None, None] + values[:, *LAKE] // 32
        image.write(values)
    return folder


def given(city: Path, verb: str = "map") -> tuple[object, ...]:
    return (verb, city / "image.tif", "--model", city / "model.pt", "--labels", city / "labels_10m.tif",
            "--window", 128, "--precision", "fp32", "--batch", 1)  # fmt: skip


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read(1)


def test_two_processes_find_the_change_that_one_finds_and_all_say_so(
    citycover, city: Path, tmp_path: Path
) -> None:
    alone, two, without = (tmp_path / name for name in ("alone", "two", "without"))
    done = citycover(*given(city), "--change", "-o", alone)
    assert done.code == 0, done.err
    assert citycover(*given(city), "--change", "-o", two, "--workers", 2).code == 0
    assert citycover(*given(city), "-o", without).code == 0
    for name in ("landcover.tif", "change.tif"):
        np.testing.assert_array_equal(read(alone / name), read(two / name))
    lost = read(alone / "change.tif")
    found = lost >= 127
    inside = np.zeros_like(found)
    inside[LAKE] = True
    assert found[inside].mean() > 0.2  # of rules that have too few labels here to show that they can tell all
    assert found[~inside].mean() < 0.01
    np.testing.assert_array_equal(
        read(alone / "landcover.tif")[lost == 0], read(without / "landcover.tif")[lost == 0]
    )
    share = json.loads((alone / "run.json").read_text())["labels"]["changed"]
    assert share == pytest.approx(found.mean(), abs=1e-9)
    assert f"; {share:.1%} changed since, and not trusted there" in done.out
    assert f"{share:.1%} of what is labelled; change.tif says where" in (alone / "report.html").read_text()
    asset = json.loads((alone / "item.json").read_text())["assets"]["change"]
    assert asset["title"].lower() == "trust that labels lost"
    assert not (without / "change.tif").exists()


def test_change_needs_labels_and_windows_that_see_enough_of_them(
    citycover, city: Path, tmp_path: Path
) -> None:
    bare = citycover("map", city / "image.tif", "--change", "-o", tmp_path / "out")
    assert bare.code == 2 and "name label files with it" in bare.err
    narrow = citycover(*given(city), "--change", "--window", 48, "-o", tmp_path / "out")
    assert narrow.code == 2 and "give --window so much more, or leave out --change" in narrow.err
    assert not (tmp_path / "out" / "landcover.tif").exists()


def test_a_plan_and_a_region_know_of_it(citycover, city: Path, tmp_path: Path) -> None:
    assert "change" in json.loads(citycover(*given(city, "plan"), "--change", "--json").out)["layers"]
    region = tmp_path / "region.toml"
    region.write_text(
        f"""
        name = "north"
        out = "products"
        model = "{city / "model.pt"}"
        [[scenes]]
        files = ["{city / "image.tif"}"]
        [labels]
        files = ["{city / "labels_10m.tif"}"]
        change = true
        [engine]
        window = 128
        """
    )
    done = citycover("run", region)
    assert done.code == 0, done.err
    (layer,) = (tmp_path / "products" / "maps").glob("*/change.tif")
    assert (read(layer) == 254).any()
