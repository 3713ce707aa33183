"""`citycover vectorize` and `citycover stats`, from a product to what is made of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from mapped import patchy, write_product

Run = Callable[..., Result]
CLASSES = patchy((60, 80))


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write_product(tmp_path / "product", CLASSES)


def write_zones(path: Path, half: float = 20.0) -> Path:
    ring = [[5e5 + x, 5.8e6 - y] for x, y in ((30, 30), (30 + half, 30), (30 + half, 90), (30, 90), (30, 30))]
    zone = {
        "type": "Feature",
        "properties": {"name": "Mitte"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [zone]}))
    return path


def test_stats_say_the_same_as_table_json_and_csv(citycover: Run, product: Path, tmp_path: Path) -> None:
    zones = write_zones(tmp_path / "zones.geojson")
    arguments = ("stats", product, "--zones", zones, "--by", "name")
    said = json.loads(citycover(*arguments, "--json", "-o", tmp_path / "deep/areas.csv").out)
    with (tmp_path / "deep/areas.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["area_m2"]) for row in rows] == [row["area_m2"] for row in said["areas"]]
    assert said["total_m2"] == 4 * (CLASSES > 0).sum()
    assert sum(row["area_m2"] for row in said["areas"] if row["zone"] == "Mitte") == pytest.approx(1200)
    shown = citycover(*arguments).out
    assert "whole map  class 1" in shown and "Mitte" in shown
    assert citycover(*arguments, "-q").out == ""


def test_polygons_are_written_and_counted(citycover: Run, product: Path, tmp_path: Path) -> None:
    result = citycover("vectorize", product, "-o", tmp_path / "areas.gpkg", "--min-area", "40", "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert said["polygons"] > 5 and said["square_metres"] == pytest.approx(4 * (CLASSES > 0).sum())
    assert (
        f"{said['polygons']:,}" in citycover("vectorize", product, "-o", said["path"], "--min-area", "40").out
    )


@pytest.mark.parametrize("verb", [("stats",), ("vectorize", "-o", "out.gpkg")])
def test_what_is_no_product_is_refused(
    citycover: Run, product: Path, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    name, *rest = verb
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, message in (
        (empty, "holds no landcover.tif"),
        (tmp_path / "nowhere", "does not exist"),
        (product / "run.json", "cannot be opened as a raster"),
        (product / "confidence.tif", "say with|legend"),
    ):
        legend = ("--map-legend", "base4") if path.suffix == ".json" else ()
        result = citycover(name, path, *legend, *rest)
        assert result.code == 2 and any(part in result.err for part in message.split("|")), result.err
    (product / "run.json").unlink()
    result = citycover(name, product, *rest)
    assert result.code == 2 and "no run.json" in result.err and "map again" in result.err


def test_zones_elsewhere_are_refused(citycover: Run, product: Path, tmp_path: Path) -> None:
    zones = write_zones(tmp_path / "zones.geojson", -2000.0)
    zones.write_text(zones.read_text().replace("32633", "32610"))
    result = citycover("stats", product, "--zones", zones)
    assert result.code == 2 and "do not overlap" in result.err
    result = citycover("stats", product, "--by", "name")
    assert result.code == 2 and "--zones" in result.err


def test_change_is_written_drawn_and_told(citycover: Run, product: Path, tmp_path: Path) -> None:
    later = write_product(tmp_path / "later", patchy((60, 80), seed=5))
    files = (
        "-o",
        tmp_path / "c/change.tif",
        "--table",
        tmp_path / "c/change.csv",
        "--figure",
        tmp_path / "c/c.svg",
    )
    result = citycover("compare", product, later, *files, "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert sum(map(sum, said["matrix_m2"])) == pytest.approx(said["compared_m2"])
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "change.tif",
        "change.tif.aux.xml",
        "change.csv",
        "c.svg",
    }
    shown = citycover("compare", product, later).out
    assert "changed" in shown and "class 1" in shown
    result = citycover("compare", product, tmp_path)
    assert result.code == 2 and "holds no landcover.tif" in result.err


def test_a_map_is_refined(citycover: Run, product: Path, tmp_path: Path) -> None:
    zones = write_zones(tmp_path / "zones.geojson")
    arguments = ("refine", product, "-o", tmp_path / "tidy", "--majority", "3", "--burn", f"{zones}=class 2")
    result = citycover(*arguments, "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert said["pixels"] == (CLASSES > 0).sum() and list(said["steps"]) == ["majority", "burn"]
    assert "changed" in citycover(*arguments, "--overwrite").out
    result = citycover("refine", product, "-o", tmp_path / "x", "--burn", "water.gpkg")
    assert result.code == 2 and "FILE=CLASS" in result.err
    assert citycover("refine", product, "-o", tmp_path / "x").code == 2


def test_a_report_is_asked_for_before_anything_is_reckoned(citycover: Run, product: Path) -> None:
    for verb in (("compare", product, product), ("evaluate", product, "--truth", product)):
        result = citycover(*verb, "--report")
        assert result.code == 2 and "leave --report out" in result.err
