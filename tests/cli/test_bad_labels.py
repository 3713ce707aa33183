"""Labels that cannot teach or be evidence: every entrance has a message for each, and writes nothing.

`map` and `sharpen` have theirs beside their other tests.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import rioxarray
from affine import Affine
from labelled import write_labelled_city
from labelling import BAD_LABELS, changed

import citycover as library
from citycover.errors import CitycoverError

TOO_FINE = {"transform": Affine(0.2, 0, 392_000, 0, -0.2, 5_820_000)}
BAD = BAD_LABELS | {
    "another legend": ({}, ("--labels-legend", "nlcd"), "hold ids that legend 'nlcd' does not have: 1 ("),
    "too fine": (TOO_FINE, (), "finer than the pixels of the map"),
    "nowhere": ({"crs": None}, (), "have no CRS"),
}
QUICK = (
    "--recipe",
    "l2hnet-light",
    "--set",
    "epochs=1",
    "--set",
    "chips_per_epoch=16",
    "--set",
    "chip=32",
    "--set",
    "batch=4",
)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_city(tmp_path_factory.mktemp("city"), 300)


def plan(city: Path, labels: Path, more: tuple[str, ...]) -> tuple[object, ...]:
    return "plan", city / "image.tif", "--model", city / "model.pt", "--labels", labels, *more


def write_region(city: Path, labels: Path, more: tuple[str, ...], folder: Path, model: str) -> Path:
    """A region of one scene."""
    keys = {"--labels-legend": "legend = '{}'", "--trust": "trust = {}"}
    said = [keys[option].format(value) for option, value in zip(more[::2], more[1::2], strict=True)]
    path = folder / "region.toml"
    lines = ["name = 'north'", "out = 'products'", f"model = '{model}'", "[[scenes]]",
             f"files = ['{city / 'image.tif'}']", "[labels]", f"files = ['{labels}']", *said]  # fmt: skip
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("probe", [(), ("--no-probe",)])
@pytest.mark.parametrize("name", BAD)
def test_a_plan_says_what_is_wrong(citycover, city: Path, tmp_path: Path, name: str, probe: Any) -> None:
    changes, more, message = BAD[name]
    result = citycover(*plan(city, changed(city, tmp_path / "labels.tif", **changes), more), *probe)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize("name", BAD)
def test_a_region_says_what_is_wrong(citycover, city: Path, tmp_path: Path, name: str) -> None:
    """Of its file and for every scene, or of the scene that fails."""
    changes, more, message = BAD[name]
    labels = changed(city, tmp_path / "labels.tif", **changes)
    result = citycover("run", write_region(city, labels, more, tmp_path, str(city / "model.pt")))
    assert result.code == (2 if name in ("too much trust", "no such legend") else 3)
    assert message in result.err
    assert not list(tmp_path.glob("products/maps/*/landcover.tif"))


@pytest.mark.parametrize("name", BAD)
def test_an_array_with_labels_says_what_is_wrong(city: Path, tmp_path: Path, name: str) -> None:
    changes, more, message = BAD[name]
    labels = changed(city, tmp_path / "labels.tif", **changes)
    said = dict(zip(more[::2], more[1::2], strict=True))
    trust = float(said["--trust"]) if "--trust" in said else None

    def map_lazily() -> None:
        with rioxarray.open_rasterio(city / "image.tif") as image:
            request = library.LabelRequest((labels,), said.get("--labels-legend"), trust)
            library.predict_array(image, city / "model.pt", labels=request)

    with pytest.raises(CitycoverError, match=re.escape(message)):
        map_lazily()


def test_a_model_that_does_not_know_what_labels_need_is_refused_everywhere(
    citycover, city: Path, tmp_path: Path
) -> None:
    labels, image = city / "labels_10m.tif", city / "image.tif"
    region = write_region(city, labels, (), tmp_path, "spectral-rgbn")
    for given in ("plan", image, "--labels", labels), ("run", region):
        result = citycover(*given)
        assert result.code == 2 and "has no trained_prior" in result.err
    with rioxarray.open_rasterio(image) as array, pytest.raises(CitycoverError, match="has no trained_prior"):
        library.predict_array(array, "spectral-rgbn", labels=library.LabelRequest((labels,)))


TEACHES_NOTHING = {
    "elsewhere": "do not overlap; needed are labels of the same place",
    "no such legend": "there is no legend 'moon'",
    "one class": "every label says 'tree', which teaches to tell nothing from it",
    "nothing": "they are nodata there",
    "old codes": "these built-in legends hold all its ids: globeland30, worldcover",
    "a picture": "needed is one band of class numbers",
    "another legend": "holds ids that the table onto legend 'nlcd' does not have: 1 (",
    "nowhere": "write one into the files",
}


@pytest.mark.parametrize("name", TEACHES_NOTHING)
@pytest.mark.parametrize("only", [(), ("--plan",)])
def test_a_training_says_what_is_wrong(citycover, city: Path, tmp_path: Path, name: str, only: Any) -> None:
    changes, more, _ = BAD[name]
    labels = changed(city, tmp_path / "labels.tif", **changes)
    result = citycover("train", "--image", city / "image.tif", "--labels", labels, *QUICK, *only, "--legend",
                       more[1] if more else "city", "-o", tmp_path / "out")  # fmt: skip
    assert result.code == 2
    assert TEACHES_NOTHING[name] in result.err
    assert not (tmp_path / "out").exists()


def test_a_training_warns_of_labels_finer_than_its_image(citycover, city: Path, tmp_path: Path) -> None:
    """It may be a truth at hand; but of five by five cells one is heard."""
    labels = changed(city, tmp_path / "labels.tif", **TOO_FINE)
    result = citycover("train", "--image", city / "image.tif", "--labels", labels, *QUICK, "--legend", "city",
                       "-o", tmp_path / "out", "--plan")  # fmt: skip
    assert result.code == 0
    assert (
        "cells of 0.2 m, finer than the pixels of" in result.err and "gdalwarp -r mode -tr 1 1" in result.err
    )
