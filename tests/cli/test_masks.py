"""Clouds through the command line: what a mask hides is nodata, and nobody forgets that there is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from conftest import write_scene

OPTIONS = ("--model", "spectral-rgbn", "--device", "cpu")


def scene_with_mask(folder: Path) -> tuple[Path, Path, np.ndarray]:
    scene = write_scene(folder / "a.tif")
    with rasterio.open(scene) as image:
        profile = image.profile | {"count": 1, "dtype": "uint8", "nodata": None, "photometric": None}
        shape = image.shape
    numbers = np.full(shape, 4, np.uint8)
    numbers[10:20, 30:50] = 9
    mask = folder / "a_SCL.tif"
    del profile["photometric"]
    with rasterio.open(mask, "w", **profile) as file:
        file.write(numbers, 1)
    return scene, mask, numbers == 9


def classes(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "landcover.tif") as file:
        return file.read(1)


def test_what_a_mask_hides_is_nodata(citycover, tmp_path: Path) -> None:
    scene, mask, hidden = scene_with_mask(tmp_path)
    assert citycover("map", scene, "-o", tmp_path / "all", *OPTIONS).code == 0
    done = citycover("map", scene, mask, "--mask", "scl", "-o", tmp_path / "clear", *OPTIONS)
    assert done.code == 0, done.err
    clear = classes(tmp_path / "clear")
    assert (clear[hidden] == 0).all()
    assert ((clear == 0) == hidden).all()
    run = json.loads((tmp_path / "clear" / "run.json").read_text())
    assert run["request"]["imagery"]["masking"] == {"rules": ["scl"], "grow": 0.0}
    assert any("a_SCL.tif" in json.dumps(part) for part in run["inputs"])
    grown = citycover(
        "map", scene, mask, "--mask", "scl", "--mask-grow", "3", "-o", tmp_path / "grown", *OPTIONS
    )
    assert grown.code == 0, grown.err
    assert (classes(tmp_path / "grown") == 0).sum() > hidden.sum()


def test_a_map_without_a_pixel_is_warned_of(citycover, tmp_path: Path) -> None:
    scene, mask, _ = scene_with_mask(tmp_path)
    done = citycover("map", scene, mask, "--mask", "scl=0-9", "-o", tmp_path / "out", *OPTIONS)
    said = "no pixel of the map is valid: look at nodata of the image, what masks hide (scl (0, 1, "
    assert done.code == 0 and said in done.err, done.err
    assert said in json.loads((tmp_path / "out" / "run.json").read_text())["warnings"][0]
    done = citycover("map", scene, mask, "--mask", "scl", "-o", tmp_path / "some", *OPTIONS)
    assert done.code == 0 and "no pixel of the map" not in done.err, done.err


def test_a_mask_whose_numbers_are_of_no_such_mask_is_told_of(citycover, tmp_path: Path) -> None:
    scene, mask, hidden = scene_with_mask(tmp_path)
    given = ("map", scene, mask, "--mask", "scl", "-o", tmp_path / "out", *OPTIONS)
    with rasterio.open(mask, "r+") as file:
        numbers = file.read(1)
        file.write(np.where(hidden, 200, 100).astype(np.uint8), 1)
    done = citycover(*given)
    said = "band 1 of a_SCL.tif holds 100, 200, and that of scl 0 to 11"
    assert done.code == 2 and said in done.err and "--mask a_SCL.tif=VALUES" in done.err, done.err
    numbers[:5] = 255
    with rasterio.open(mask, "r+") as file:
        file.write(numbers, 1)
    done = citycover(*given)
    assert done.code == 0 and "holds 255" not in done.err, "as where a mosaic has no mask"
    assert ((classes(tmp_path / "out") == 0) == hidden).all()


def test_one_band_for_several_is_told_of(citycover, tmp_path: Path) -> None:
    scene, _, _ = scene_with_mask(tmp_path)
    done = citycover("plan", scene, "--bands", "1,1,2,1", "--no-probe", *OPTIONS)
    assert done.code == 0 and "band 1 of a.tif as red, green, nir: whatever" in done.err, done.err
    done = citycover("plan", scene, "--bands", "1,2,3,4", "--no-probe", *OPTIONS)
    assert done.code == 0 and "whatever it tells" not in done.err, done.err


def test_a_mask_that_is_there_and_not_used_is_told_of(citycover, tmp_path: Path) -> None:
    scene, mask, _ = scene_with_mask(tmp_path)
    done = citycover("map", scene, mask, "-o", tmp_path / "out", *OPTIONS)
    assert done.code == 0 and "with --mask scl they become nodata" in done.err, done.err
    assert (classes(tmp_path / "out") > 0).all()


def test_bad_masks_end_with_2(citycover, tmp_path: Path) -> None:
    scene, mask, _ = scene_with_mask(tmp_path)
    for words, said in (
        (("--mask", "qa_pixel"), "called so"),
        (("--mask", "haze"), "known are scl"),
        (("--mask-grow", "10"), "name a mask"),
    ):
        done = citycover("map", scene, mask, *words, "-o", tmp_path / "out", *OPTIONS)
        assert done.code == 2 and said in done.err, done.err
        assert "model" not in citycover("map", scene, mask, *words, "-o", tmp_path / "out").err
        assert not (tmp_path / "out").exists()
