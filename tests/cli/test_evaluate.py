"""`citycover sample` and `citycover evaluate`, from a map to a report."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import Result, write_scene
from making import make_record
from PIL import Image

from citycover.classes.legend import read_legend

Run = Callable[..., Result]
TRANSFORM = Affine(2, 0, 5e5, 0, -2, 5.8e6)


def write_classes(path: Path, values: np.ndarray, nodata: int | None = 0) -> Path:
    bands = values[None] if values.ndim == 2 else values
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=len(bands),
        dtype=values.dtype.name, crs="EPSG:32633", transform=TRANSFORM, nodata=nodata,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """In the legend of the practice city."""
    blocks = np.random.default_rng(0).integers(1, 7, (12, 16), np.uint8)
    return write_classes(tmp_path / "truth.tif", blocks.repeat(8, 0).repeat(8, 1))


@pytest.fixture
def product(tmp_path: Path, truth: Path) -> Path:
    """A product in `landcover5`, of which every tenth pixel is wrong."""
    legend = read_legend("landcover5")
    with rasterio.open(truth) as dataset:
        right = np.vectorize(legend.table_from("city").get)(dataset.read(1)).astype(np.uint8)
    wrong = np.random.default_rng(1).random(right.shape) < 0.1
    folder = tmp_path / "product"
    folder.mkdir()
    write_classes(folder / "landcover.tif", np.where(wrong, right % 5 + 1, right).astype(np.uint8))
    (folder / "run.json").write_text(make_record(legend).to_json())
    return folder


def test_a_product_is_judged_by_a_raster_in_another_legend(
    citycover: Run, product: Path, truth: Path, tmp_path: Path
) -> None:
    figure, report = tmp_path / "matrix.png", tmp_path / "deep/report.json"
    result = citycover(
        "evaluate", product, "--truth", truth, "--legend", "city", "--json", "--figure", figure, "-o", report
    )
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert said == json.loads(report.read_text())
    assert said["overall_accuracy"] == pytest.approx(0.9, abs=0.01)
    assert {"miou", "fwiou", "kappa", "mean_class_recall", "compared", "left_out", "matrix"} <= set(said)
    assert said["legend"] == "landcover5" and said["area_adjusted"] is None
    assert sum(c["pixels"] for c in said["classes"]) == 96 * 128
    with Image.open(figure) as image:
        assert min(image.size) > 300 and len(image.getcolors(10**6) or []) > 50


def test_the_table_names_every_figure(citycover: Run, product: Path, truth: Path) -> None:
    result = citycover("evaluate", product, "--truth", truth, "--legend", "city")
    for word in ("overall accuracy", "mean IoU", "kappa", "mean class recall", "producer's", "Built-up"):
        assert word in result.out
    assert citycover("evaluate", product, "--truth", truth, "--legend", "city", "-q").out == ""


def fill_in(points: Path, truth: Path, legend: str) -> None:
    """Play the interpreter: write the name of the true class of each point."""
    names = dict(zip(read_legend(legend).ids, read_legend(legend).names, strict=True))
    with rasterio.open(truth) as dataset:
        values = dataset.read(1)

    def name(row: dict[str, Any]) -> str:
        col, line = ~TRANSFORM * (float(row["x"]), float(row["y"]))
        return names[int(values[int(line), int(col)])]

    if points.suffix == ".csv":
        rows = list(csv.DictReader(points.read_text().splitlines()))
        with points.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | {"class": name(row)} for row in rows)
    else:
        data = json.loads(points.read_text())
        for feature in data["features"]:
            feature["properties"]["class"] = name(feature["properties"])
        points.write_text(json.dumps(data))


@pytest.mark.parametrize("ending", ["csv", "geojson"])
def test_a_sample_that_was_interpreted_gives_areas_with_intervals(
    citycover: Run, product: Path, truth: Path, tmp_path: Path, ending: str
) -> None:
    points = tmp_path / f"points.{ending}"
    drawn = citycover("sample", product, "--points", 600, "--allocation", "olofsson", "-o", points, "--json")
    assert drawn.code == 0, drawn.err
    assert sum(s["points"] for s in json.loads(drawn.out)["strata"]) == 600
    empty = citycover("evaluate", product, "--truth", points)
    assert empty.code == 2 and "fill it in" in empty.err
    fill_in(points, truth, "city")
    arguments = ("evaluate", product, "--truth", points, "--legend", "city")
    said = json.loads(citycover(*arguments, "--json").out)
    adjusted = said["area_adjusted"]
    with rasterio.open(truth) as dataset:
        true = np.vectorize(read_legend("landcover5").table_from("city").get)(dataset.read(1))
    assert adjusted["points"] == 600
    assert adjusted["hectares"] == pytest.approx(96 * 128 * 4e-4, rel=3e-3)
    for c in adjusted["classes"]:
        share, area = c["area_share"], c["area_ha"]
        assert abs(share["value"] - (true == c["id"]).mean()) < 3 * share["standard_error"]
        assert area["value"] == pytest.approx(share["value"] * adjusted["hectares"])
        assert area["margin95"] == pytest.approx(1.96 * area["standard_error"])
    shown = citycover(*arguments).out
    assert "adjusted by area" in shown and "±" in shown


def test_points_of_another_design_take_their_strata_from_the_map(
    citycover: Run, product: Path, truth: Path, tmp_path: Path
) -> None:
    points = tmp_path / "points.csv"
    citycover("sample", product, "--points", 200, "--allocation", "equal", "-o", points)
    fill_in(points, truth, "city")
    ours = ("evaluate", product, "--truth", points, "--legend", "city", "--json")
    with_sizes = json.loads(citycover(*ours).out)["area_adjusted"]
    rows = list(csv.DictReader(points.read_text().splitlines()))
    kept = [{k: v for k, v in row.items() if k not in {"stratum_pixels", "stratum_ha"}} for row in rows]
    with points.open("w", newline="") as file:
        writer = csv.DictWriter(file, kept[0])
        writer.writeheader()
        writer.writerows(kept)
    once = citycover(*ours)
    counted = json.loads(once.out)["area_adjusted"]
    assert "count again" not in once.err
    assert counted["overall_accuracy"] == with_sizes["overall_accuracy"]
    assert counted["hectares"] == pytest.approx(with_sizes["hectares"])
    with points.open("a", newline="") as file:
        csv.DictWriter(file, kept[0]).writerows(kept[:7])
    assert "7 points of" in (twice := citycover(*ours).err) and "count again" in twice
    with points.open("w", newline="") as file:  # one stratum is forgotten: its area stands for nothing
        writer = csv.DictWriter(file, kept[0])
        writer.writeheader()
        writer.writerows(row for row in kept if row["stratum"] != "3")
    forgotten = citycover(*ours)
    assert json.loads(forgotten.out)["area_adjusted"] is None
    assert "no area-adjusted figures" in forgotten.err
    columns = ("stratum_pixels", "stratum_ha")
    for number in ("nan", "-5", "0"):
        with points.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(row | dict.fromkeys(columns, number) for row in rows)
        wrong = citycover(*ours)
        assert json.loads(wrong.out)["area_adjusted"] is None
        assert "one number, not below 0, as stratum_pixels" in wrong.err
    with points.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row["stratum"] != "3")
    assert "leave out" in citycover(*ours).err


def test_a_local_grid_is_no_place_on_the_earth(
    citycover: Run, product: Path, truth: Path, tmp_path: Path
) -> None:
    points = tmp_path / "points.csv"
    citycover("sample", product, "--points", 50, "-o", points)
    fill_in(points, truth, "city")
    with rasterio.open(truth, "r+") as dataset:
        dataset.crs = rasterio.CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    refused = citycover("evaluate", product, "--truth", truth, "--legend", "city")
    assert refused.code == 2 and "cannot be tied" in refused.err and "gdal_edit.py" in refused.err
    site = ("evaluate", truth, "--map-legend", "city", "--truth", points, "--legend", "city")
    assert "cannot be tied" in citycover(*site).err
    drawn = citycover("sample", truth, "--map-legend", "city", "--points", 50, "-o", tmp_path / "p.csv")
    assert drawn.code == 2 and "cannot be tied" in drawn.err


def test_the_number_of_points_follows_from_the_standard_error(
    citycover: Run, product: Path, tmp_path: Path
) -> None:
    out = tmp_path / "points.csv"
    result = citycover("sample", product, "--standard-error", 0.03, "--expect", "0.9", "-o", out, "--json")
    assert json.loads(result.out)["points"] == 100  # (0.3 / 0.03)^2
    again = ("sample", product, "--standard-error", 0.03, "--expect", "0.9,5=0.5", "-o", out, "--json")
    kept = citycover(*again)
    assert kept.code == 2 and "may hold someone's work" in kept.err
    assert json.loads(citycover(*again, "--overwrite").out)["points"] > 100
    few = citycover("sample", product, "--standard-error", 0.5, "-o", out, "--json", "--overwrite")
    assert json.loads(few.out)["points"] == 10 and "strata take 10 to" in few.err


def test_probabilities_are_merged_before_or_after_the_decision(
    citycover: Run, product: Path, truth: Path, tmp_path: Path
) -> None:
    with rasterio.open(truth) as dataset:
        right = dataset.read(1)
    wrong = np.where(right < 5, right, 11 - right)  # a building for paved ground, and the other way round
    likely = np.where(np.arange(1, 7)[:, None, None] == wrong, 0.35, 0.05)
    likely[4:6, right >= 5] = 0.3
    likely[3, right >= 5] = 0.32  # bare soil: more than either, less than both
    source = write_classes(tmp_path / "p.tif", likely.astype(np.float32), None)
    shares = {}
    for merge in ("first", "last"):
        result = citycover(
            "evaluate", truth, "--map-legend", "city", "--truth", truth, "--to", "landcover5",
            "--probabilities", source, "--merge", merge, "--json",
        )  # fmt: skip
        shares[merge] = json.loads(result.out)["overall_accuracy"]
    assert shares["first"] == 1
    assert shares["last"] == pytest.approx((right < 5).mean())
    missing = citycover("evaluate", product, "--truth", truth, "--legend", "city", "--merge", "first")
    assert missing.code == 2 and "needs probabilities" in missing.err


@pytest.mark.parametrize(
    "given", [(), ("--probabilities", "probabilities.tif"), ("--probabilities", "landcover.zarr")]
)
def test_the_probabilities_of_a_product_are_found_and_its_nodata_has_no_class(
    citycover: Run, tmp_path: Path, given: tuple[str, ...]
) -> None:
    values = np.random.default_rng(0).integers(30, 220, (4, 12, 15), np.uint8).repeat(8, 1).repeat(8, 2)
    values[:, 8:40, 16:64] = 0
    scene = write_scene(tmp_path / "scene.tif", (96, 120), values=values, nodata=0, transform=TRANSFORM)
    out = tmp_path / "out"
    formats = ("--format", "cog,zarr") if "landcover.zarr" in given else ()
    assert citycover("map", scene, "-o", out, "--probabilities", "--quiet", *formats).code == 0
    with rasterio.open(out / "landcover.tif") as dataset:
        known = dataset.read(1)
    truth = write_classes(tmp_path / "truth.tif", np.where(known == 0, 1, known).astype(np.uint8), None)
    given = tuple(str(out / word) if "." in word else word for word in given)
    result = citycover("evaluate", out, "--truth", truth, "--merge", "first", *given, "--json")
    report = json.loads(result.out)
    assert (report["overall_accuracy"], report["compared"]) == (1, 96 * 120 - 32 * 48)


def test_polygons_judge_by_the_name_of_their_class(
    citycover: Run, product: Path, truth: Path, tmp_path: Path
) -> None:
    with rasterio.open(truth) as dataset:
        values = dataset.read(1)
    squares = [
        {
            "type": "Feature",
            "properties": {"kind": read_legend("city").names[values[8 * row, 8 * col] - 1]},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [
                        TRANSFORM * (8 * col + a, 8 * row + b)
                        for a, b in ((0, 0), (8, 0), (8, 8), (0, 8), (0, 0))
                    ]
                ],
            },
        }
        for row in range(6)
        for col in range(16)
    ]
    path = tmp_path / "squares.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": squares}))
    common = ("evaluate", product, "--truth", path, "--legend", "city", "--field", "kind")
    result = citycover(*common, "--truth-crs", "EPSG:32633", "--json")
    said = json.loads(result.out)
    assert said["truth_kind"] == "polygons" and said["compared"] == 6 * 16 * 64
    assert said["overall_accuracy"] == pytest.approx(0.9, abs=0.01)
    assert "names no CRS" not in result.err
    unsaid = citycover(*common, "--json")  # the numbers are metres: no degrees, so those of the map
    assert json.loads(unsaid.out)["compared"] == said["compared"] and "names no CRS" in unsaid.err
    apart = citycover(*common, "--truth-crs", "EPSG:32635")
    assert apart.code == 2 and "--truth-crs" in apart.err
    other = citycover(*common, "--truth-crs", "EPSG:32633", "--elsewhere", "Lawn")
    assert other.code == 2 and "is no class of legend 'city'" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nothing", "--truth", "truth.tif"), "nothing does not exist"),
        (("evaluate", ".", "--truth", "truth.tif"), "holds no landcover.tif"),
        (("evaluate", "truth.tif", "--truth", "truth.tif"), "with --map-legend"),
        (("evaluate", "product", "--truth", "truth.tif", "--legend", "mars"), "there is no legend 'mars'"),
        (
            ("evaluate", "product", "--truth", "truth.tif", "--legend", "esri", "--to", "vcnet4"),
            "has no remap table",
        ),
        (("evaluate", "product", "--truth", "truth.tif"), "6 (2"),
        (("evaluate", "product", "--truth", "no.csv"), "does not exist"),
        (("evaluate", "product", "--truth", "truth.tif", "--merge", "never"), "--merge takes first, last"),
        (("evaluate", "product", "--truth", "truth.tif", "--legend", "city", "--figure", "a.xyz"), ".xyz"),
        (
            ("evaluate", "product", "--truth", "truth.tif", "--legend", "city", "--elsewhere", "Bare"),
            "--elsewhere is said of points or polygons",
        ),
        (
            ("evaluate", "product", "--truth", "truth.tif", "--legend", "city", "--field", "kind"),
            "--field is said of points or polygons",
        ),
        (("sample", "product", "--points", "50", "--expect", "0.9", "-o", "a.csv"), "one of the two"),
        (("sample", "product", "--points", "5", "-o", "a.csv"), "at least 10"),
        (("sample", "product", "--points", "50", "-o", "a.shp"), ".geojson or "),
        (("sample", "product", "--expect", "good", "-o", "a.csv"), "got 'good'"),
        (("sample", "product", "--expect", "9=0.5", "-o", "a.csv"), "names class 9"),
        (("sample", "truth.tif", "--points", "50", "-o", "a.csv"), "city"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(
    citycover: Run,
    product: Path,
    truth: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = citycover(*arguments)
    assert result.code == 2, result.out
    assert message in result.err
    assert "citycover: error: " in result.err


def test_features_that_say_only_that_something_is_there_need_a_class(
    citycover: Run, product: Path, tmp_path: Path
) -> None:
    """Outlines of buildings with a column of ones: class 1 of the map is something else."""
    points = tmp_path / "buildings.csv"
    points.write_text("x,y,class\n" + "".join(f"{5e5 + 9 * n},{5.8e6 - 7 * n},1\n" for n in range(1, 20)))
    as_they_are = citycover("evaluate", product, "--truth", points, "--json")
    assert "every feature of" in as_they_are.err and "--truth-class" in as_they_are.err
    assert json.loads(as_they_are.out)["classes"][0]["pixels"] == 19
    named = citycover("evaluate", product, "--truth", points, "--truth-class", "built-up", "--json")
    assert not named.err and json.loads(named.out)["classes"][4]["pixels"] == 19
    unknown = citycover("evaluate", product, "--truth", points, "--truth-class", "moon")
    assert unknown.code == 2 and "--truth-class 'moon' is no class of legend 'landcover5'" in unknown.err
    twice = citycover("evaluate", product, "--truth", points, "--truth-class", "built-up", "--field", "kind")
    assert twice.code == 2 and "--field kind, a column that says each one's; give one of them" in twice.err
