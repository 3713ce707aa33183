"""Several networks, and windows turned, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
from conftest import write_scene

import citycover as citycover_package
from citycover.job.request import EngineOptions

OPTIONS = ("--device", "cpu", "--window", "64", "--precision", "fp32")


def layer(folder: Path, name: str) -> np.ndarray:
    with rasterio.open(folder / f"{name}.tif") as file:
        return file.read(1)


def test_equal_networks_map_as_one_and_rules_of_colour_bear_any_turn(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "a.tif")
    maps = {
        "one": ("--model", "spectral-rgbn"),
        "three": ("--model", "spectral-rgbn", "--model", "spectral-rgbn=3", "--model", "spectral-rgbn"),
        "turned": ("--model", "spectral-rgbn", "--tta", "d4"),
    }
    for name, words in maps.items():
        done = citycover("map", scene, *words, "-o", tmp_path / name, *OPTIONS)
        assert done.code == 0, done.err
    for name in ("three", "turned"):
        np.testing.assert_array_equal(
            layer(tmp_path / name, "landcover"), layer(tmp_path / "one", "landcover")
        )
        sure = layer(tmp_path / name, "confidence").astype(int) - layer(tmp_path / "one", "confidence")
        assert abs(sure).max() <= 1
    runs = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in maps}
    assert runs["one"]["model"]["members"] == []
    assert [m["weight"] for m in runs["three"]["model"]["members"]] == [0.2, 0.6, 0.2]
    assert runs["turned"]["model"]["turns"] == "d4"
    assert len({run["model"]["sha256"] for run in runs.values()}) == 3


def test_an_ensemble_is_the_same_on_workers_and_another_one_is_another_map(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "a.tif")
    both = ("--model", "spectral-rgbn", "--model", "urban-rgbn-1m=2", "--tta", "flips")
    for name, words in (("here", ()), ("there", ("--workers", "2"))):
        done = citycover("map", scene, *both, "-o", tmp_path / name, *OPTIONS, *words)
        assert done.code == 0, done.err
    for name in ("landcover", "confidence"):
        np.testing.assert_array_equal(layer(tmp_path / "here", name), layer(tmp_path / "there", name))
    assert citycover("map", scene, *both, "-o", tmp_path / "here", *OPTIONS).code == 5
    other = citycover("map", scene, *both[:-2], "-o", tmp_path / "here", *OPTIONS)
    assert other.code == 2 and "another" in other.err, other.err


def test_plan_knows_them_and_bad_words_end_with_2(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "a.tif")
    done = citycover("plan", scene, "--model", "spectral-rgbn", "--tta", "flips", "--no-probe")
    assert done.code == 0 and "spectral-rgbn (flips)" in done.out, done.out
    for words, said in (
        (("--model", "spectral-rgbn", "--tta", "turns"), "--tta takes none, flips, d4"),
        (("--model", "spectral-rgbn=-1"), "is no weight"),
        (("--model", "spectral-rgbn", "--model", "spectral-rgb"), "differ in bands"),
        (("--model", "spectral-rgbn", "--model", ""), "there is no model ''"),
        (
            ("--model", "spectral-rgbn", "--model", "spectral-rgbn", "--require-hash", "0" * 8),
            "of one model file",
        ),
    ):
        done = citycover("plan", scene, *words, "--no-probe")
        assert done.code == 2 and said in done.err, done.err


def test_disagreement_is_a_layer_of_several(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "a.tif")
    alike = ("--model", "spectral-rgbn", "--model", "spectral-rgbn=3")
    apart = ("--model", "spectral-rgbn", "--model", "urban-rgbn-1m=2", "--tta", "flips")
    for name, models, words in (
        ("alike", alike, ()),
        ("apart", apart, ("--format", "cog,zarr")),
        ("there", apart, ("--workers", "2")),
    ):
        done = citycover("map", scene, *models, "--disagreement", "-o", tmp_path / name, *OPTIONS, *words)
        assert done.code == 0, done.err
    assert layer(tmp_path / "alike", "disagreement").max() <= 1
    found = layer(tmp_path / "apart", "disagreement")
    assert 20 < found.mean() < 254 and found.max() <= 254
    np.testing.assert_array_equal(found, layer(tmp_path / "there", "disagreement"))
    assert citycover("map", scene, *apart, "-o", tmp_path / "plain", *OPTIONS).code == 0
    for name in ("landcover", "confidence"):
        np.testing.assert_array_equal(layer(tmp_path / "apart", name), layer(tmp_path / "plain", name))
    asset = json.loads((tmp_path / "apart" / "item.json").read_text())["assets"]["disagreement"]
    assert asset["title"] == "disagreement of the networks"
    assert asset["raster:bands"][0]["scale"] == pytest.approx(1 / 254)
    assert (tmp_path / "apart" / "disagreement.qml").is_file()
    with rioxarray.open_rasterio(scene) as image:
        models = ["spectral-rgbn", "urban-rgbn-1m=2"]
        engine = EngineOptions(device="cpu", window=64)
        lazy = citycover_package.predict_array(
            image, models, tta="flips", layers=("disagreement",), engine=engine
        )
        np.testing.assert_array_equal(lazy.disagreement.values, found)
    with citycover_package.open_product(tmp_path / "apart") as product:
        np.testing.assert_array_equal(product.disagreement.values, found)
    alone = citycover("map", scene, "--model", "spectral-rgbn", "--disagreement", "-o", tmp_path / "one")
    assert alone.code == 2 and "--tta flips" in alone.err and not (tmp_path / "one").exists(), alone.err
