"""Labels by name on the command line: train, map and what they credit; bad names, each with its message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import write_scene
from labelled import write_labelled_city
from serving import Served, serving, write_product

from citycover.files.gdal import REMOTE_OPTIONS
from citycover.model.archive import read_model_file

QUICK = ("--set", "epochs=1", "--set", "chips_per_epoch=16", "--set", "chip=32", "--set", "batch=4")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_city(tmp_path_factory.mktemp("city"), 300)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(REMOTE_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.01")
    return tmp_path / "cache"


def at(server: Served, folder: Path) -> Path:
    """The labels of the city as a product of that server; its tile lies in UTM, as those of some do."""
    return write_product(folder / "tiles.toml", server.url, legend="city")


def test_map_takes_labels_by_name_and_credits_them(citycover, city: Path, tmp_path: Path) -> None:
    given = ("map", city / "image.tif", "--model", city / "model.pt", "--window", 128, "--precision", "fp32")
    by_file = citycover(*given, "--labels", city / "labels_10m.tif", "-o", tmp_path / "by_file")
    assert by_file.code == 0, by_file.err
    with serving({"N52E013.tif": city / "labels_10m.tif"}) as server:
        product = at(server, tmp_path)
        by_name = citycover(*given, "--labels", product, "-o", tmp_path / "by_name")
        assert by_name.code == 0, by_name.err
        source = f"{server.url}/N52E013.tif"
    again = citycover(*given, "--labels", product, "-o", tmp_path / "without_network")
    assert again.code == 0, again.err
    planes = []
    for name in ("by_file", "by_name", "without_network"):
        with rasterio.open(tmp_path / name / "landcover.tif") as raster:
            planes.append(raster.read(1))
    np.testing.assert_array_equal(planes[0], planes[1])
    np.testing.assert_array_equal(planes[0], planes[2])
    record = json.loads((tmp_path / "by_name" / "run.json").read_text())
    (credit,) = record["labels"]["credits"]
    assert (credit["attribution"], credit["licence"], credit["source"]) == ("© Tiles 2020", "CC0-1.0", source)
    item = json.loads((tmp_path / "by_name" / "item.json").read_text())
    (link,) = [link for link in item["links"] if link["href"] == source]
    assert link["rel"] == "derived_from"
    assert link["attribution"] == "© Tiles 2020"


def test_sharpen_takes_labels_by_name_and_credits_them(citycover, city: Path, tmp_path: Path) -> None:
    given = ("sharpen", city / "image.tif", *QUICK, "--window", 128, "--precision", "fp32")
    with serving({"N52E013.tif": city / "labels_10m.tif"}) as server:
        product = at(server, tmp_path)
        by_name = citycover(*given, "--labels", product, "-o", tmp_path / "by_name")
        assert by_name.code == 0, by_name.err
    again = citycover(*given, "--labels", product, "-o", tmp_path / "without_network")
    assert again.code == 0, again.err
    folders = [tmp_path / name for name in ("by_name", "without_network")]
    records = [json.loads((folder / "run.json").read_text())["labels"] for folder in folders]
    assert records[0]["legend"] == "city"
    assert records[0]["credits"][0]["attribution"] == "© Tiles 2020"
    assert records[0] == records[1]
    planes = []
    for folder in folders:
        with rasterio.open(folder / "landcover.tif") as raster:
            planes.append(raster.read(1))
    np.testing.assert_array_equal(*planes)


def test_train_takes_labels_by_name_and_their_legend(citycover, city: Path, tmp_path: Path) -> None:
    with serving({"N52E013.tif": city / "labels_10m.tif"}) as server:
        product = at(server, tmp_path)
        trained = citycover("train", "--recipe", "l2hnet-light", "--image", city / "image.tif", "--labels",
                            product, "-o", tmp_path / "run", "--workers", 0, *QUICK)  # fmt: skip
    assert trained.code == 0, trained.err
    card = read_model_file(tmp_path / "run" / "model.pt").card
    assert card.label_legend == "city"
    assert "© Tiles 2020 (CC0-1.0)" in card.training
    (credit,) = json.loads((tmp_path / "run" / "plan.json").read_text())["credits"]
    assert credit["title"] == "Tiles"


BAD = {
    "unknown": ("worldcovre", 2, "known by name: dynamic-world, esri, glc_fcs30, worldcover"),
    "year": ("worldcover:1999", 2, "has no year 1999; it has 2020, 2021"),
    "no files": ("dynamic-world", 2, "give --labels FILE.tif with the legend dynamic-world"),
    "by hand": ("glc_fcs30", 2, "GLC_FCS30D_20002022_E10N55_Annual_V1.1.tif"),
}


@pytest.mark.parametrize("verb", ["map", "train", "sharpen"])
@pytest.mark.parametrize("name", BAD)
def test_bad_names_end_with_a_message(citycover, city: Path, tmp_path: Path, name: str, verb: str) -> None:
    named, code, message = BAD[name]
    more = {
        "map": ("map", city / "image.tif", "--model", city / "model.pt"),
        "train": ("train", "--recipe", "l2hnet-light", "--image", city / "image.tif", "--to", "base4"),
        "sharpen": ("sharpen", city / "image.tif", "--to", "base4"),
    }
    result = citycover(*more[verb], "--labels", named, "-o", tmp_path / "out")
    assert result.code == code
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_without_a_network_the_files_to_fetch_are_named(citycover, city: Path, tmp_path: Path) -> None:
    product = write_product(tmp_path / "tiles.toml", "http://127.0.0.1:9", legend="city")
    result = citycover("map", city / "image.tif", "--model", city / "model.pt", "--labels", product,
                       "-o", tmp_path / "out")  # fmt: skip
    assert result.code == 4
    assert "http://127.0.0.1:9/N52E013.tif" in result.err
    assert str(tmp_path / "cache") in result.err


def test_the_sea_and_the_poles_have_no_labels(citycover, city: Path, tmp_path: Path) -> None:
    with serving({}) as server:
        sea = citycover("map", city / "image.tif", "--model", city / "model.pt", "--labels",
                        at(server, tmp_path), "-o", tmp_path / "out")  # fmt: skip
    assert sea.code == 2
    assert "has no file where the scene lies (N52E013.tif)" in sea.err
    pole = write_scene(tmp_path / "pole.tif", crs="EPSG:3031", transform=Affine(1, 0, 0, 0, -1, 100_000))
    beyond = citycover("map", pole, "--model", city / "model.pt", "--labels", "worldcover",
                       "-o", tmp_path / "out")  # fmt: skip
    assert beyond.code == 2
    assert "ESA WorldCover covers -180,-60,180,84" in beyond.err
