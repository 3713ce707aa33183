import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import write_scene
from rio_cogeo import cog_validate

from citycover.engine.strips import reflect
from citycover.errors import StoppedError
from citycover.job.job import prepare
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.job.watch import Watch
from citycover.model.builtin import builtin_path
from citycover.model.network import load_model
from citycover.plan.cost import BESIDE
from citycover.plan.plan import CHUNK
from citycover.run.map import map_scene


def test_a_scene_becomes_a_product_on_its_own_grid(citycover, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = citycover("map", scene, "--out", out)
    assert result.code == 0, result.err
    assert str(out / "report.html") in result.out
    assert {p.name for p in out.iterdir()} == {
        "landcover.tif", "landcover.tif.aux.xml", "landcover.qml", "confidence.tif", "confidence.qml",
        "item.json", "run.json", "preview.png", "report.html",
    }  # fmt: skip
    with rasterio.open(scene) as source, rasterio.open(out / "landcover.tif") as product:
        assert (product.crs, product.transform, product.shape) == (source.crs, source.transform, source.shape)
        assert product.colormap(1)[1][:3] == (47, 111, 197) or product.colormap(1)
        assert product.nodata == 0
    for name in ("landcover.tif", "confidence.tif"):
        assert cog_validate(out / name, strict=True)[0]


def test_the_map_equals_one_forward_over_the_whole_scene(citycover, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert citycover("map", scene, "-o", out, "--window", 48, "--batch", 2).code == 0
    network, model = load_model(builtin_path("spectral-rgbn"), "cpu")
    card = model.card
    with rasterio.open(scene) as source:
        image = source.read()
    pad = card.trim + card.feather
    rows, cols = (reflect(-pad, n + 2 * pad, n) for n in image.shape[1:])
    with torch.inference_mode():
        scores = network(torch.from_numpy(image[:, rows][:, :, cols])[None])[0]
    whole = torch.softmax(scores, 0)[:, pad : pad + image.shape[1], pad : pad + image.shape[2]]
    two = whole.topk(2, dim=0).values
    clear = (two[0] - two[1] > 1e-4).numpy()
    with rasterio.open(out / "landcover.tif") as product:
        classes = product.read(1)
    assert (classes == whole.argmax(0).numpy() + 1)[clear].all() and clear.mean() > 0.99


def test_a_resumed_run_keeps_the_blocks_that_its_memory_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(tmp_path / "scene.tif", (1100, 2100))
    engine = EngineOptions(window=256, batch=4, memory=2.0)
    request = MapRequest(Imagery((str(scene),)), tmp_path / "out", engine=engine)
    job = prepare(request.imagery, engine=engine)
    narrow = replace(job.draft, batch=1, block_shape=(job.draft.block_shape[0], CHUNK))
    assert job.draft.block_shape[1] > CHUNK
    held = 2**31 - BESIDE - job.totals(narrow).memory.total
    monkeypatch.setattr("citycover.compute.bound.peak_rss", lambda: held)
    monkeypatch.setattr("citycover.compute.bound.process_memory", lambda _name: held)
    stop = threading.Event()
    with pytest.raises(StoppedError):
        map_scene(request, Watch(advanced=lambda _block: stop.set(), stop=stop))
    monkeypatch.undo()
    wide = replace(request, engine=replace(engine, memory=64.0))  # the widest blocks would fit
    again = map_scene(wide).run.given.plan
    assert (again["block_shape"], again["batch"]) == (list(narrow.block_shape), 1)


def test_nodata_stays_nodata_and_only_nodata(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", nodata=0)
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(np.zeros((4, 30, 40), np.uint8), window=rasterio.windows.Window(20, 10, 40, 30))
    assert citycover("map", scene, "-o", tmp_path / "out").code == 0
    with rasterio.open(tmp_path / "out" / "landcover.tif") as product:
        empty = product.read(1) == 0
    wanted = np.zeros((90, 120), np.bool_)
    wanted[10:40, 20:60] = True
    np.testing.assert_array_equal(empty, wanted)


def test_run_json_adds_up(citycover, scene: Path, tmp_path: Path) -> None:
    result = citycover("map", scene, "-o", tmp_path / "out", "--json")
    printed = json.loads(result.out)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert printed["stages"] == run["stages"] and printed["product"] == str(tmp_path / "out")
    inside = sum(run["stages"].values()) - run["stages"]["start"]
    assert inside == pytest.approx(run["sweep_s"], abs=0.02)
    windows = run["plan"]["windows"]
    assert run["windows"] == {"run": windows, "skipped": 0, "slots": windows}
    assert 0 < run["forward_share"] <= 1 and run["redundancy"] >= 1
    assert run["model"]["sha256"] and run["inputs"][0]["path"] == str(scene)


def test_bands_in_separate_files_and_by_number_give_the_same_map(
    citycover, scene: Path, tmp_path: Path
) -> None:
    with rasterio.open(scene) as source:
        image = source.read()
    files = []
    for k, letter in enumerate("RGBN"):
        files.append(
            write_scene(tmp_path / f"x-{letter}.tif", bands=1, values=image[k : k + 1], descriptions=("",))
        )
    maps = []
    for n, arguments in enumerate(([scene], files, [*files[::-1], "--bands", "4,3,2,1"])):
        out = tmp_path / f"out{n}"
        assert citycover("map", *arguments, "-o", out).code == 0
        with rasterio.open(out / "landcover.tif") as product:
            maps.append(product.read(1))
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_an_area_crops_the_grid_and_masks_the_rest(citycover, scene: Path, tmp_path: Path) -> None:
    assert citycover("map", scene, "-o", tmp_path / "all").code == 0
    box = "500020,5799940,500080,5799990"
    assert citycover("map", scene, "-o", tmp_path / "box", "--bbox", box).code == 0
    triangle = {
        "type": "Polygon",
        "coordinates": [[[500020, 5799940], [500080, 5799940], [500020, 5799990], [500020, 5799940]]],
    }
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    aoi = tmp_path / "aoi.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": triangle}
    aoi.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    assert citycover("map", scene, "-o", tmp_path / "aoi", "--aoi", aoi).code == 0
    maps = {}
    for name in ("all", "box", "aoi"):
        with rasterio.open(tmp_path / name / "landcover.tif") as product:
            maps[name], transform = product.read(1), product.transform
    assert (transform.c, transform.f) == (500_020, 5_799_990)
    np.testing.assert_array_equal(maps["box"], maps["all"][10:60, 20:80])
    assert 0.4 < (maps["aoi"] > 0).mean() < 0.6
    inside = maps["aoi"] > 0
    np.testing.assert_array_equal(maps["aoi"][inside], maps["box"][inside])


def test_a_second_run_into_the_folder_is_refused_unless_told(citycover, scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert citycover("map", scene, "-o", out).code == 0
    again = citycover("map", scene, "-o", out)
    assert again.code == 5 and "--overwrite" in again.err
    assert citycover("map", scene, "-o", out, "--overwrite", "--compress", "deflate").code == 0
    with rasterio.open(out / "landcover.tif") as product:
        assert product.compression.value == "DEFLATE"


def test_a_south_up_scene_is_mapped_south_up(citycover, scene: Path, tmp_path: Path) -> None:
    with rasterio.open(scene) as source:
        image = source.read()
    south = write_scene(
        tmp_path / "south.tif",
        values=image[:, ::-1],
        transform=rasterio.Affine(1, 0, 500_000, 0, 1, 5_799_910),
    )
    maps = {}
    for name, path in (("north", scene), ("south", south)):
        assert citycover("map", path, "-o", tmp_path / name).code == 0
        with rasterio.open(tmp_path / name / "landcover.tif") as product:
            maps[name] = product.read(1)
            assert (product.transform.e > 0) == (name == "south")
    assert (maps["south"][::-1] == maps["north"]).mean() > 0.999


def test_all_nodata_is_a_map_of_nodata(citycover, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", values=np.zeros((4, 90, 120)), nodata=0)
    result = citycover("map", scene, "-o", tmp_path / "out")
    assert result.code == 0 and "no valid pixel" in result.out
    with rasterio.open(tmp_path / "out" / "landcover.tif") as product:
        assert not product.read(1).any()


def test_plan_and_inspect_speak_json(citycover, scene: Path) -> None:
    plan = json.loads(citycover("plan", scene, "--json").out)
    assert plan["windows"] == 1 and plan["shape"] == [90, 120] and plan["seconds"] > 0
    assert {"redundancy", "read_bytes", "peak_memory_bytes"} <= plan.keys()
    facts = json.loads(citycover("inspect", scene, "--json").out)[0]
    assert facts["gsd_m"] == pytest.approx(1, rel=1e-2) and len(facts["bands"]) == 4
    card = json.loads(citycover("inspect", "spectral-s2", "--json").out)
    assert card["card"]["name"] == "spectral-s2" and len(card["sha256"]) == 64


def test_the_tables_for_people_name_what_matters(citycover, scene: Path) -> None:
    assert "redundancy" in citycover("plan", scene, "--no-probe").out
    shown = citycover("inspect", scene).out
    assert "red" in shown and "EPSG:32633" in shown
    assert "spectral-rgbn" in citycover("models", "list").out
    assert "sha256" in citycover("models", "show", "spectral-rgb").out
    names = [m["name"] for m in json.loads(citycover("models", "list", "--json").out)]
    assert {"spectral-rgbn", "spectral-s2", "spectral-rgb"} <= set(names)


def test_verbose_and_log_file(citycover, scene: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    result = citycover("map", scene, "-o", tmp_path / "out", "-v", "--log-file", log)
    assert "redundancy" in result.err and "redundancy" in log.read_text()
    quiet = citycover("map", scene, "-o", tmp_path / "quiet", "-q")
    assert quiet.out == "" and quiet.err == ""


def test_export_writes_models_that_map(citycover, scene: Path, tmp_path: Path) -> None:
    model = tmp_path / "rgbn.pt"
    assert citycover("export", "spectral-rgbn", "-o", model).code == 0
    assert citycover("map", scene, "-o", tmp_path / "out", "--model", model).code == 0


def test_a_foreign_torchscript_file_gets_a_card(citycover, scene: Path, tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2].float() / 255

    torch.jit.script(Net()).save(tmp_path / "net.pt")
    bare = citycover("map", scene, "-o", tmp_path / "out", "--model", tmp_path / "net.pt")
    assert bare.code == 2 and "citycover export --torchscript" in bare.err
    card = """
name = "two"
trim = 0
feather = 4
[[groups]]
bands = ["red", "green", "blue", "nir"]
dtypes = ["uint8"]
[window]
size = 64
[legend]
name = "two"
nodata = 0
classes = [{id = 1, name = "one", color = "#112233"}, {id = 2, name = "two", color = "#445566"}]
"""
    (tmp_path / "card.toml").write_text(card)
    model = tmp_path / "model.pt"
    result = citycover(
        "export", "--torchscript", tmp_path / "net.pt", "--card", tmp_path / "card.toml", "-o", model
    )
    assert result.code == 0, result.err
    assert citycover("map", scene, "-o", tmp_path / "out", "--model", model).code == 0
    with rasterio.open(scene) as source, rasterio.open(tmp_path / "out" / "landcover.tif") as product:
        image, classes = source.read(), product.read(1)
    np.testing.assert_array_equal(classes, np.where(image[1] > image[0], 2, 1))
    contradicting = tmp_path / "wrong.toml"
    contradicting.write_text(
        card.replace('bands = ["red"', 'bands = ["x", "red"').replace('"nir"]', '"nir"]')
    )
    three = card.replace("classes = [", 'classes = [{id = 3, name = "three", color = "#000000"}, ')
    contradicting.write_text(three)
    wrong = citycover(
        "export", "--torchscript", tmp_path / "net.pt", "--card", contradicting, "-o", tmp_path / "w.pt"
    )
    assert wrong.code == 2 and "promises" in wrong.err


def test_seams_are_verified_on_request(citycover, scene: Path, tmp_path: Path) -> None:
    flags = ("--window", "32", "--trim", "4", "--feather", "8", "--verify-seams")
    run = json.loads(citycover("map", scene, "-o", tmp_path / "a", *flags, "--json").out)
    assert run["seams"]["pixels"] > 500 and run["seams"]["at_seams"] == 0
    assert "shifted grid" in citycover("map", scene, "-o", tmp_path / "b", *flags).out
    assert json.loads(citycover("map", scene, "-o", tmp_path / "c", "--json").out)["seams"] is None


def test_each_file_may_be_a_scene_of_its_own(citycover, scene: Path, tmp_path: Path) -> None:
    """In one process; what is whole stays, and a file that is none stops no other."""
    for name in ("east", "west"):
        (tmp_path / f"{name}.tif").write_bytes(scene.read_bytes())
    (tmp_path / "broken.tif").write_text("no raster")
    files, out = [tmp_path / f"{name}.tif" for name in ("broken", "east", "west")], tmp_path / "out"
    first = citycover("map", *files, "--each", "-o", out)
    assert first.code == 3
    assert "1 failed, 2 mapped" in first.out
    assert "broken.tif cannot be opened" in first.out
    alone = tmp_path / "alone"
    assert citycover("map", scene, "-o", alone).code == 0
    for name in ("east", "west"):
        landcover = out / "maps" / name / "landcover.tif"
        assert landcover.read_bytes() == (alone / "landcover.tif").read_bytes()
    again = citycover("map", *files[1:], "--each", "-o", out, "--json")
    assert again.code == 0
    assert json.loads(again.out)["scenes"] == []  # nothing had to be done
    anew = citycover("map", *files[1:], "--each", "-o", out, "--json", "--overwrite", "--restart")
    assert [made["what"] for made in json.loads(anew.out)["scenes"]] == ["mapped", "mapped"]


def test_what_many_scenes_cannot_be_given(citycover, scene: Path, tmp_path: Path) -> None:
    result = citycover("map", scene, "--each", "-o", tmp_path / ".out")
    assert result.code == 2
    assert "error: many scenes at once: '.out' cannot name a folder" in result.err
