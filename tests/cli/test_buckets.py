"""Products in a bucket: every verb says of them what it says of the same product in a folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
from affine import Affine
from bucket import BUCKET, Bucket, point_at, serving_bucket
from conftest import Result, write_map, write_scene
from starlette.testclient import TestClient

from citycover.files import remote
from citycover.product.open import open_product
from citycover.product.product import Product
from citycover.synth.write import write_city
from citycover.view.maps import find_maps
from citycover.view.server import open_app

Run = Callable[..., Result]

PLACE = f"s3://{BUCKET}/maps/city"
HALF = f"s3://{BUCKET}/maps/half"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product with probabilities, as a run leaves it."""
    return write_map(tmp_path_factory.mktemp("made"), (96, 128))


@pytest.fixture
def bucket(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Holds the product, and half of another one."""
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        for path in (p for p in made.rglob("*") if p.is_file()):
            name = path.relative_to(made).as_posix()
            bucket.objects[f"maps/city/{name}"] = path.read_bytes()
            if name != "item.json":
                bucket.objects[f"maps/half/{name}"] = path.read_bytes()
        yield bucket


def said(citycover: Run, *arguments: object) -> Any:
    result = citycover(*arguments, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_a_pattern_finds_the_sheets_of_a_scene_there(citycover: Run, bucket: Bucket, tmp_path: Path) -> None:
    for number in range(2):
        at = Affine(1, 0, 500_000 + 120 * number, 0, -1, 5_800_000)
        sheet = write_scene(tmp_path / f"tiles/{number}.tif", transform=at)
        bucket.objects[f"tiles/{number}.tif"] = sheet.read_bytes()
    bucket.objects["tiles/note.txt"] = b"no sheet"
    plans = [
        said(citycover, "plan", place, "--model", "spectral-rgbn", "--no-probe")
        for place in (tmp_path / "tiles", f"s3://{BUCKET}/tiles/*.tif")
    ]
    assert plans[0] == plans[1] and plans[0]["shape"] == [90, 240]
    nothing = citycover("plan", f"s3://{BUCKET}/tiles/*.jp2", "--no-probe")
    assert nothing.code == 2 and "no file matches s3://" in nothing.err


def test_areas_are_those_of_the_folder(citycover: Run, bucket: Bucket, made: Path) -> None:
    there, here = said(citycover, "stats", PLACE), said(citycover, "stats", made)
    assert there["map"] == PLACE and there["areas"] == here["areas"]


def test_polygons_are_those_of_the_folder(citycover: Run, bucket: Bucket, made: Path, tmp_path: Path) -> None:
    for place, name in ((PLACE, "there"), (made, "here")):
        said(citycover, "vectorize", place, "-o", tmp_path / f"{name}.geojsonl", "--min-area", "9")
    assert (tmp_path / "there.geojsonl").read_text() == (tmp_path / "here.geojsonl").read_text()


def test_a_map_there_and_its_copy_here_are_alike(
    citycover: Run, bucket: Bucket, made: Path, tmp_path: Path
) -> None:
    for one, other in ((PLACE, made), (made, PLACE), (PLACE, PLACE)):
        change = said(
            citycover, "compare", one, other, "-o", tmp_path / "change.tif", "--min-confidence", "0.1",
        )  # fmt: skip
        assert change["changed_m2"] == 0 < change["compared_m2"]
        with rasterio.open(tmp_path / "change.tif") as raster:
            assert {"before": str(one), "after": str(other)}.items() <= _layer_names(raster.tags()).items()


def _layer_names(tags: dict[str, str]) -> dict[str, str]:
    """Paths of class rasters as the products that hold them."""
    return {name: value.removesuffix("/landcover.tif") for name, value in tags.items()}


@pytest.mark.parametrize("to_bucket", [False, True])
def test_it_is_refined_into_a_folder_or_a_bucket(
    citycover: Run, bucket: Bucket, made: Path, tmp_path: Path, to_bucket: bool
) -> None:
    out = f"s3://{BUCKET}/maps/tidy" if to_bucket else str(tmp_path / "tidy")
    before = dict(bucket.objects)
    facts = said(citycover, "refine", PLACE, "-o", out, "--majority", "3")
    assert facts["folder"] == out and facts["changed"] > 0
    said(citycover, "refine", made, "-o", tmp_path / "here", "--majority", "3")
    with open_product(out) as there, open_product(tmp_path / "here") as here:
        np.testing.assert_array_equal(there.classes, here.classes)
        np.testing.assert_array_equal(there.confidence, here.confidence)
    assert {key: bucket.objects[key] for key in before} == before, "what it was made from stays"
    if to_bucket:
        assert [key for method, key in bucket.changes if method == "PUT"][-1] == "maps/tidy/item.json"
        again = citycover("refine", PLACE, "-o", out, "--majority", "3")
        assert again.code == 2 and "give --overwrite" in again.err
        said(citycover, "refine", PLACE, "-o", out, "--majority", "5", "--overwrite")
        assert Product.read(out).run.refined[-1]["steps"] == {"majority": 5}
        assert not list((tmp_path / "cache").iterdir()), "what lay here has gone"


@pytest.mark.parametrize("out", [PLACE, f"{PLACE}/tidy"])
def test_a_product_there_is_never_changed(citycover: Run, bucket: Bucket, out: str) -> None:
    result = citycover("refine", PLACE, "-o", out, "--majority", "3", "--overwrite")
    assert result.code == 2 and "lies in the product itself" in result.err
    for words in (("compare", PLACE, PLACE), ("evaluate", PLACE, "--truth", PLACE)):
        result = citycover(*words, "--report")
        assert result.code == 2 and "leave --report out" in result.err
    assert not bucket.changes


def test_it_is_judged_as_the_folder_is(citycover: Run, bucket: Bucket, made: Path, tmp_path: Path) -> None:
    citycover("sample", PLACE, "-o", tmp_path / "points.csv", "--points", "20")
    text = (tmp_path / "points.csv").read_text().splitlines()
    column = text[0].split(",").index("stratum")
    judged = [line + line.split(",")[column] for line in text[1:]]  # `class` is the last column, and empty
    (tmp_path / "points.csv").write_text("\n".join([text[0], *judged]) + "\n")
    for truth in (tmp_path / "points.csv", made, PLACE):
        there, here = (said(citycover, "evaluate", m, "--truth", truth) for m in (PLACE, made))
        assert {**there, "map": ""} == {**here, "map": ""} and there["overall_accuracy"] == 1
        assert there["reliability"] is not None
    said(citycover, "evaluate", PLACE, "--truth", made, "--merge", "first")


def test_it_is_described(citycover: Run, bucket: Bucket, made: Path) -> None:
    assert said(citycover, "inspect", PLACE) == said(citycover, "inspect", made)
    assert f"{PLACE}" in citycover("inspect", PLACE).out
    (there,), (here,) = (said(citycover, "inspect", f"{at}/landcover.tif") for at in (PLACE, made))
    assert there["bounds"] == here["bounds"], "a raster is looked at as a scene is"


def test_products_there_are_collected(citycover: Run, bucket: Bucket, made: Path, tmp_path: Path) -> None:
    facts = said(citycover, "collect", f"s3://{BUCKET}/maps", "--title", "all")
    assert facts["products"] == [PLACE], "half a product is none"
    found = json.loads(bucket.objects["maps/collection.json"])
    assert [link["href"] for link in found["links"] if link["rel"] == "item"] == ["./city/item.json"]
    shutil.copytree(made, tmp_path / "maps/city")
    said(citycover, "collect", tmp_path / "maps", "--title", "all")
    assert found == json.loads((tmp_path / "maps/collection.json").read_text())
    pystac.Collection.from_dict(found)
    said(citycover, "collect", f"s3://{BUCKET}/maps")
    bucket.objects["maps/collection.json"] = b"{}"
    result = citycover("collect", f"s3://{BUCKET}/maps")
    assert result.code == 2 and "is not of citycover" in result.err


def test_products_there_are_looked_at(bucket: Bucket, made: Path) -> None:
    (there, _), (here, _) = (open_app([place], "127.0.0.1") for place in (f"s3://{BUCKET}/maps", made))
    far, near = (TestClient(app, base_url="http://127.0.0.1") for app in (there, here))
    one, other = far.get("/view.json").json()["maps"][0], near.get("/view.json").json()["maps"][0]
    assert {**one, "edition": ""} == {**other, "edition": ""} and one["name"] == "city"
    west, south, east, north = one["bounds"]
    place = f"/point?at={(west + east) / 2},{(south + north) / 2}"
    assert far.get(place).json() == near.get(place).json() and far.get(place).json()[0]["probabilities"]
    areas = f"/areas/0?in={west},{south},{east},{north}"
    assert far.get(areas).json() == near.get(areas).json()


def test_an_array_of_classes_there_is_a_map(
    citycover: Run, bucket: Bucket, made: Path, tmp_path: Path
) -> None:
    with rioxarray.open_rasterio(made / "landcover.tif") as image:
        cover = image.squeeze("band", drop=True).load().rename("cover").to_dataset()
    cover.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    for path in (p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()):
        bucket.objects[f"in/{path.relative_to(tmp_path)}"] = path.read_bytes()
    there, legend = f"s3://{BUCKET}/in/a.zarr", ("--map-legend", "landcover5")
    told = said(citycover, "evaluate", there, "--truth", made, *legend)
    assert told["overall_accuracy"] == 1 and told["compared"] > 0
    assert (
        said(citycover, "evaluate", made, "--truth", there, "--legend", "landcover5")["overall_accuracy"] == 1
    )
    areas = [said(citycover, "stats", *words)["areas"] for words in ((there, *legend), (made,))]
    assert [row["pixels"] for row in areas[0]] == [row["pixels"] for row in areas[1]]
    (shown,) = find_maps([there], "landcover5")
    before = shown.edition
    bucket.objects["in/a.zarr/cover/c/0/0"] = b"other"
    assert shown.edition != before


VERBS = [
    ("stats", "{}"),
    ("vectorize", "{}", "-o", "out.gpkg"),
    ("compare", "{}", PLACE),
    ("compare", PLACE, "{}"),
    ("refine", "{}", "-o", "out", "--majority", "3"),
    ("evaluate", "{}", "--truth", PLACE),
    ("evaluate", PLACE, "--truth", "{}"),
    ("sample", "{}", "-o", "out.csv"),
    ("inspect", "{}"),
    ("view", "{}", "--no-open"),
]


@pytest.mark.parametrize("verb", VERBS, ids=[f"{v[0]} {v[1:].index('{}')}" for v in VERBS])
def test_what_is_no_product_there_is_refused(
    citycover: Run, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, words in (
        (HALF, ("holds no item.json", "give the folder")),
        (f"s3://{BUCKET}/nothing", (f"s3://{BUCKET}/nothing", "give")),
        ("s3://nowhere/maps", ("there is no bucket 'nowhere'", "correct the name")),
        ("gs://bucket/maps", ("is no place for a product", "give a folder")),
    ):
        if verb[0] == "inspect" and place.startswith("gs"):  # a scene may lie there
            continue
        result = citycover(*(word.format(place) for word in verb))
        assert result.code == 2, result.err
        assert all(word in result.err for word in words), result.err
    bucket.denied = True
    result = citycover(*(word.format(PLACE) for word in verb))
    assert result.code == 4 and "access is denied" in result.err and "set AWS_ACCESS_KEY_ID" in result.err
    assert not bucket.changes


def test_without_credentials_it_is_said_what_to_set(
    citycover: Run, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    result = citycover("stats", PLACE)
    assert result.code == 4 and "set AWS_ACCESS_KEY_ID" in result.err


def test_another_product_in_its_place_is_seen_at_once(
    citycover: Run, bucket: Bucket, made: Path, tmp_path: Path
) -> None:
    before = said(citycover, "stats", PLACE)["areas"]
    said(citycover, "refine", made, "-o", tmp_path / "tidy", "--majority", "9")
    for path in (tmp_path / "tidy").iterdir():
        bucket.objects[f"maps/city/{path.name}"] = path.read_bytes()
    after = said(citycover, "stats", PLACE)["areas"]
    assert after != before and after == said(citycover, "stats", tmp_path / "tidy")["areas"]


@pytest.mark.parametrize("name", ["landcover.tif", "confidence.tif"])
def test_a_raster_that_names_files_of_this_machine_is_no_raster(
    citycover: Run, bucket: Bucket, made: Path, name: str
) -> None:
    mosaic = (
        '<VRTDataset rasterXSize="128" rasterYSize="96"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{made / name}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    # As large as the one in its place: that is looked at first.
    bucket.objects[f"maps/city/{name}"] = mosaic.encode().ljust((made / name).stat().st_size)
    result = citycover("stats", PLACE)
    assert result.code == 2 and "cannot be opened as a raster" in result.err


@pytest.mark.parametrize("verb", ["map", "run"])
def test_a_living_run_holds_its_blocks_against_a_second_one(
    citycover: Run, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """By hand, and of a region whose file says where blocks are kept."""
    scene, out, work = write_scene(tmp_path / "scene.tif"), f"s3://{BUCKET}/north", f"s3://{BUCKET}/work"
    region = tmp_path / "region.toml"
    region.write_text(
        f'name = "north"\nout = "{out}"\nmodel = "spectral-rgbn"\n[[scenes]]\nfiles = ["{scene}"]\n'
        f'[engine]\nwork = "{work}"\n[policy]\nheld = "leave"\n'
    )
    by_hand = ("map", str(scene), "--model", "spectral-rgbn", "--out", out, "--work", work)
    words = {"map": by_hand, "run": ("run", str(region))}[verb]
    begun, goes_on = threading.Event(), threading.Event()

    def held_up(key: str) -> None:
        if key.startswith("work/") and "/classes/c/" in key:
            begun.set()
            goes_on.wait()

    bucket.on_put = held_up
    command = [sys.executable, "-m", "citycover_cli", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        try:
            assert begun.wait(120)
            monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "another machine's"))
            second = citycover(*words)
        finally:
            goes_on.set()
        said = first.communicate()[1]
    assert second.code == 6 and f"process {first.pid} on" in second.err, second.err
    assert first.returncode == 0, said
    place = "north/item.json" if verb == "map" else "north/maps/scene/item.json"
    assert place in bucket.objects and not [key for key in bucket.objects if key.startswith("work/")]


def test_a_training_reads_images_and_labels_there(citycover: Run, bucket: Bucket, tmp_path: Path) -> None:
    write_city(tmp_path / "city", 96, 3)
    for name in ("image.tif", "labels_10m.tif", "truth.tif"):
        bucket.objects[f"city/{name}"] = (tmp_path / "city" / name).read_bytes()
    image, labels, truth = (f"s3://{BUCKET}/city/{name}.tif" for name in ("image", "labels_10m", "truth"))
    given = ("train", "--image", image, "--labels", labels, "--legend", "city", "-o", tmp_path / "run")
    quick = ("network=l2hnet-tiny", "method.name=ce", "epochs=1", "chips_per_epoch=2", "chip=32", "batch=2")

    changes = (word for change in quick for word in ("--set", change))
    trained = said(citycover, *given, "--recipe", "l2hnet-light", "--workers", 0, "--device", "cpu", *changes)
    assert trained["label_cells"] > 0
    targets = ("--recipe", "lovecs-light", "--target", image, "--target-labels", truth)
    plan = said(citycover, *given, *targets, "--plan")
    assert plan["target"]["judged"] == 1
    (tmp_path / "list.csv").write_text(f"image_fn,label_fn\n{image},{labels}\n")
    listed = ("train", "--list", tmp_path / "list.csv", "--legend", "city", "-o", tmp_path / "run")
    same = said(citycover, *listed, "--recipe", "lovecs-light", "--target", image, "--plan")
    assert same["label_shares"] == plan["label_shares"]
