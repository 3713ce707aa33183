"""A model of one city maps another with that city's labels: how far these are trusted is measured there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rasterio
from affine import Affine

from citycover.synth.write import write_city

QUICK = ("--set", "epochs=1", "--set", "chips_per_epoch=16", "--set", "chip=32", "--set", "batch=4")


def city_elsewhere(folder: Path, size: int, seed: int) -> Path:
    """A practice city 100 km east of where they all lie."""
    write_city(folder, size, seed)
    for name in ("image.tif", "labels_10m.tif"):
        with rasterio.open(folder / name, "r+") as raster:
            raster.transform = Affine.translation(100_000, 0) * raster.transform
    return folder


def test_labels_of_an_unseen_city_are_measured_there(citycover, tmp_path: Path) -> None:
    write_city(tmp_path / "learned", 192, 3)
    unseen = city_elsewhere(tmp_path / "unseen", 340, 4)
    trained = citycover("train", "--recipe", "l2hnet-light", "--image", tmp_path / "learned" / "image.tif",
                        "--labels", tmp_path / "learned" / "labels_10m.tif", "--legend", "city",
                        "-o", tmp_path / "run", "--workers", 0, *QUICK)  # fmt: skip
    assert trained.code == 0, trained.err
    mapped = citycover("map", unseen / "image.tif", "--model", tmp_path / "run" / "model.pt", "--labels",
                       unseen / "labels_10m.tif", "-o", tmp_path / "out", "--precision", "fp32")  # fmt: skip
    assert mapped.code == 0, mapped.err
    assert "as measured here" in mapped.out
    labels = json.loads((tmp_path / "out" / "run.json").read_text())["labels"]
    assert labels["noise_from"] == "scene"
    assert labels["cells"] > 1000
    assert 0 < labels["trust"] < 1
    assert labels["trust"] == pytest.approx(1 - labels["contradicted"], abs=1e-6)
