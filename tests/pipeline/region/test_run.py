"""A region, run again and again: what is new is mapped, what is done left alone, whatever comes between."""

from __future__ import annotations

import json
import os
import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_scene

from citycover.compute.sink import StoreSink
from citycover.errors import ConfigError, HeldError, MachineError, ModelError, ProductError, StoppedError
from citycover.job.request import EngineOptions
from citycover.job.watch import Watch
from citycover.model.builtin import find_model
from citycover.model.joint import read_map_model
from citycover.product.product import Product
from citycover.region import run as module
from citycover.region.config import Policy, Region, SceneSource, read_region
from citycover.region.earlier import Earlier
from citycover.region.folder import RegionFolder
from citycover.region.forecast import forecast_region
from citycover.region.now import Now, NowFile
from citycover.region.record import settings_of
from citycover.region.run import RegionWatch, Share, run_region
from citycover.region.scenes import Shard
from citycover.region.status import status_of
from citycover.run.map import map_scene

HEAD = 'name = "north"\nout = "products"\nmodel = "spectral-rgbn"\n'

TAIL = '[[scenes]]\nfiles = ["im/*.tif"]\n[engine]\nprecision = "fp32"\nthreads = 1\n[policy]\nretries = 0\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two scenes, each with content of its own."""
    (tmp_path / "im").mkdir()
    for number, name in enumerate("ab"):
        image(tmp_path / "im" / f"{name}.tif", number)
    return tmp_path


def image(path: Path, seed: int) -> Path:
    """An image; all are equally large."""
    values = np.random.default_rng(seed).integers(30, 220, (4, 40, 50), np.uint8)
    return write_scene(path, (40, 50), values=values)


def region(place: Path, more: str = "", head: str = HEAD) -> Region:
    path = place / "region.toml"
    path.write_text(head + TAIL + more)
    return read_region(path)


def ran(place: Path, *args: Any, **given: Any) -> dict[str, str]:
    """Run the region; what became of each scene that had something to do."""
    report = run_region(region(place, *args, **given))
    return {outcome.scene: outcome.what for outcome in report.outcomes}


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scenes that are mapped from now on."""
    names: list[str] = []

    def map_noted(request, watch: Watch) -> Product:
        product = map_scene(request, watch)
        names.append(request.out.name)
        return product

    monkeypatch.setattr(module, "map_scene", map_noted)
    return names


def classes(folder: Path) -> Any:
    with rasterio.open(folder / "landcover.tif") as raster:
        return raster.read(1)


def test_what_is_new_is_mapped_and_what_is_done_is_left_alone(place: Path, mapped: list[str]) -> None:
    assert ran(place) == {"a": "mapped", "b": "mapped"}
    straight = map_scene(region(place).request((str(place / "im/a.tif"),), place / "straight"))
    np.testing.assert_array_equal(classes(place / "products/maps/a"), classes(straight.folder))
    mapped.clear()
    for path in (place / "im").iterdir():
        path.touch()
    assert ran(place) == {} and mapped == []
    history = [json.loads(line) for line in (place / "products/runs.jsonl").read_text().splitlines()]
    assert [run["counts"] for run in history] == [{"mapped": 2, "done": 0}, {"done": 2}]


def test_another_image_as_large_and_as_old_is_mapped_and_the_old_map_kept(
    place: Path, mapped: list[str]
) -> None:
    ran(place)
    old, path = classes(place / "products/maps/a"), place / "im/a.tif"
    before = path.stat()
    image(path, 7)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    mapped.clear()
    assert ran(place) == {"a": "mapped"} and mapped == ["a"]
    (earlier,) = (place / "products/earlier/a").iterdir()
    np.testing.assert_array_equal(classes(earlier), old)
    assert (classes(place / "products/maps/a") != old).any()


def test_a_file_that_was_renamed_is_not_mapped_again(place: Path, mapped: list[str]) -> None:
    areas = "[areas]\n"
    ran(place, areas)
    before = (place / "products/maps/a/landcover.tif").stat()
    (place / "im/a.tif").rename(place / "im/c.tif")
    mapped.clear()
    assert ran(place, areas) == {"c": "renamed"} and mapped == []
    after = (place / "products/maps/c/landcover.tif").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert {path.name for path in (place / "products/areas").iterdir()} == {"b.csv", "c.csv"}
    assert ran(place, areas) == {}


def test_a_world_file_or_a_mask_that_changes_makes_another_scene(place: Path, mapped: list[str]) -> None:
    with rasterio.open(place / "im/a.tif") as source:
        profile, values, tags = source.profile, source.read(), source.tags()
        descriptions, colours = source.descriptions, source.colorinterp
    del profile["transform"]
    (place / "im/a.tif").unlink()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        raster = rasterio.open(place / "im/a.tif", "w", **profile)
    with raster:
        raster.write(values)
        raster.descriptions, raster.colorinterp = descriptions, colours
        raster.update_tags(**tags)
    world = place / "im/a.tfw"
    world.write_text("1\n0\n0\n-1\n400000.5\n5799999.5\n")
    ran(place)
    mapped.clear()
    assert ran(place) == {}
    world.write_text("1\n0\n0\n-1\n410000.5\n5799999.5\n")
    assert ran(place) == {"a": "mapped"}
    with rasterio.open(place / "products/maps/a/landcover.tif") as raster:
        assert raster.bounds.left == 410_000
    for name in ("a.tif", "a.tfw"):  # together they are what they were
        (place / "im" / name).rename(place / "im" / name.replace("a", "c"))
    assert ran(place) == {"c": "renamed"} and ran(place) == {}
    with rasterio.open(
        place / "im/c.tif.msk", "w", driver="GTiff", width=50, height=40, count=1, dtype="uint8"
    ) as mask:
        mask.write(np.zeros((1, 40, 50), np.uint8) + np.uint8(255) * (np.arange(50) < 25))
        mask.update_tags(INTERNAL_MASK_FLAGS_1="2")
    assert ran(place) == {"c": "mapped"} and ran(place) == {}
    (place / "im/c.tif").rename(place / "im/d.tif")  # and leaves its mask and its place behind
    assert ran(place)["d"] != "renamed"


def test_what_gdal_keeps_beside_an_image_counts_and_what_viewers_write_there_does_not(
    place: Path, mapped: list[str]
) -> None:
    ran(place)
    mapped.clear()
    own = place / "im/a.tif.aux.xml"
    statistics = '<Metadata><MDI key="STATISTICS_MEAN">9</MDI></Metadata>'
    statistics = f'<PAMRasterBand band="1">{statistics}</PAMRasterBand>'
    own.write_text(f"<PAMDataset>{statistics}</PAMDataset>")
    assert ran(place) == {} and mapped == []
    moved = "<GeoTransform> 410000, 1, 0, 5800000, 0, -1</GeoTransform>"
    own.write_text(f"<PAMDataset>{moved}</PAMDataset>")
    assert ran(place) == {"a": "mapped"}
    with rasterio.open(place / "products/maps/a/landcover.tif") as raster:
        assert raster.bounds.left == 410_000
    own.write_text(f"<PAMDataset>{moved}{statistics}</PAMDataset>")
    assert ran(place) == {}
    for name in ("a.tif", "a.tif.aux.xml"):
        (place / "im" / name).rename(place / "im" / name.replace("a.", "c.", 1))
    assert ran(place) == {"c": "renamed"} and ran(place) == {}
    (place / "im/c.tif.aux.xml").unlink()
    assert ran(place) == {"c": "mapped"}


def test_a_product_whose_rasters_are_gone_or_cut_is_not_done(place: Path, mapped: list[str]) -> None:
    refine = "[refine]\nmin_area = 1\n"
    ran(place, refine)
    mapped.clear()
    (place / "products/maps/a/landcover.tif").unlink()
    os.truncate(place / "products/maps/b/confidence.tif", 100)
    stands = [(one.state, one.why) for one in status_of(region(place, refine)).standings]
    assert stands == [
        ("changed", "landcover.tif of its product gone or cut"),
        ("changed", "confidence.tif of its product gone or cut"),
    ]
    assert ran(place, refine) == {"a": "mapped", "b": "mapped"} and mapped == ["a", "b"]
    (place / "products/refined/a/landcover.tif").unlink()
    assert ran(place, refine) == {"a": "completed"} and ran(place, refine) == {}


def test_the_collection_is_that_of_the_products_that_are_there(place: Path) -> None:
    def linked() -> set[str]:
        links = json.loads(path.read_text())["links"]
        return {link["href"] for link in links if link["rel"] == "item"}

    path = place / "products/maps/collection.json"
    ran(place)
    both = linked()
    before = path.read_bytes()
    path.unlink()  # as a run leaves it that is killed at its end
    assert ran(place) == {} and path.read_bytes() == before
    stamp = path.stat().st_mtime_ns
    assert ran(place) == {} and path.stat().st_mtime_ns == stamp
    os.utime(path, ns=(0, 0))  # written before the products
    assert ran(place) == {} and path.stat().st_mtime_ns >= stamp
    (place / "im/a.tif").unlink()
    shutil.rmtree(place / "products/maps/a")
    assert ran(place) == {} and both - linked() == {"./a/item.json"}


def test_the_hash_of_a_model_is_asked_for_where_all_is_done(place: Path) -> None:
    ran(place)
    with pytest.raises(ModelError, match="00000000"):
        run_region(region(place, head=HEAD + f'require_hash = "{"0" * 8}"\n'))
    sha256 = read_map_model("spectral-rgbn").members[0].sha256
    assert ran(place, head=HEAD + f'require_hash = "{sha256[:8]}"\n') == {}


def test_a_copy_takes_no_product_of_a_file_that_is_still_there(place: Path, mapped: list[str]) -> None:
    ran(place)
    shutil.copy(place / "im/a.tif", place / "im/copy.tif")
    mapped.clear()
    copy = region(place).model_copy(
        update={"scenes": (SceneSource(files=(str(place / "im/copy.tif"),)),)},
    )
    assert [(outcome.scene, outcome.what) for outcome in run_region(copy).outcomes] == [("copy", "mapped")]
    assert (place / "products/maps/a/landcover.tif").is_file() and ran(place) == {}


def test_another_model_maps_all_and_where_it_runs_none(place: Path, mapped: list[str]) -> None:
    ran(place)
    mapped.clear()
    assert ran(place, head=HEAD.replace("rgbn", "rgb")) == {"a": "mapped", "b": "mapped"}
    mapped.clear()
    elsewhere = HEAD.replace("rgbn", "rgb")
    moved = region(place, head=elsewhere).model_copy(
        update={"engine": region(place, head=elsewhere).engine.__class__(precision="fp32", threads=2)}
    )
    assert run_region(moved).outcomes == [] and mapped == []


def test_what_is_made_of_a_map_follows_the_file(place: Path, mapped: list[str]) -> None:
    ran(place)
    mapped.clear()
    assert ran(place, '[areas]\n[polygons]\nformat = "fgb"\n') == {"a": "completed", "b": "completed"}
    raw = (place / "products/areas/a.csv").read_text()
    tidy = '[areas]\n[polygons]\nformat = "fgb"\n[refine]\nmajority = 9\n'
    assert ran(place, tidy) == {"a": "completed", "b": "completed"}
    assert (place / "products/areas/a.csv").read_text() != raw  # that of the refined map
    assert ran(place, "[areas]\n") == {"a": "completed", "b": "completed"}
    assert (place / "products/areas/a.csv").read_text() == raw
    assert mapped == []


def test_one_bad_scene_does_not_stop_the_others(place: Path) -> None:
    bad = image(place / "im/aa.tif", 3)
    whole = bad.read_bytes()
    bad.write_bytes(whole[:500])
    report = run_region(region(place))
    assert {o.scene: o.what for o in report.outcomes} == {"a": "mapped", "aa": "failed", "b": "mapped"}
    assert [o.kind for o in report.outcomes if o.failed] == ["SceneError"] and report.exit_code == 3
    assert "aa" in status_of(region(place)).failures
    bad.write_bytes(whole)
    assert ran(place) == {"aa": "mapped"}
    assert status_of(region(place)).failures == {}


def test_a_fault_of_ours_is_a_failure_of_its_scene_with_its_trace(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(request, watch: Watch) -> Product:
        if request.out.name == "a":
            raise ZeroDivisionError
        return map_scene(request, watch)

    monkeypatch.setattr(module, "map_scene", fail)
    first, second = run_region(region(place)).outcomes
    assert first.kind == "bug" and "ZeroDivisionError" in first.trace and second.what == "mapped"


def test_what_the_machine_failed_is_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def fail_once(request, watch: Watch) -> Product:
        tries.append(request.out.name)
        if tries.count(request.out.name) == 1:
            raise MachineError("no space")
        return map_scene(request, watch)

    monkeypatch.setattr(module, "map_scene", fail_once)
    assert ran(place) == {"a": "failed", "b": "failed"}
    tries.clear()
    asked = region(place)
    again = asked.model_copy(update={"policy": asked.policy.model_copy(update={"retries": 1})})
    told: list[str] = []
    report = run_region(again, None, RegionWatch(retried=told.append))
    assert [o.what for o in report.outcomes] == ["mapped", "mapped"] and len(tries) == 4
    assert told == ["a", "b"]


@pytest.mark.parametrize("moment", ["save", "place", "rename", "forget"])
def test_a_run_that_was_ended_between_map_and_place_goes_on(
    place: Path, mapped: list[str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    ran(place)
    image(place / "im/a.tif", 7)

    class EndedError(BaseException):
        pass

    def end(*_: object) -> None:
        raise EndedError

    with monkeypatch.context() as patch:
        if moment == "save":
            patch.setattr(module, "record_of", end)
        elif moment == "place":
            patch.setattr(RegionFolder, "place", end)
        elif moment == "rename":  # the old product is aside, the new one not yet there
            real = Path.rename
            patch.setattr(Path, "rename", lambda p, t: end() if p.parent.name == "next" else real(p, t))
        else:
            patch.setattr(Earlier, "forget", end)
        with pytest.raises(EndedError):
            ran(place)
    mapped.clear()
    assert ran(place) == ({} if moment == "forget" else {"a": "mapped"})
    assert mapped == []  # it was finished, and had only to be put in its place
    straight = map_scene(region(place).request((str(place / "im/a.tif"),), place / "straight"))
    np.testing.assert_array_equal(classes(place / "products/maps/a"), classes(straight.folder))
    assert len(list((place / "products/earlier/a").iterdir())) == 1
    assert ran(place) == {}


def test_a_stopped_run_goes_on_and_says_that_it_was_stopped(place: Path) -> None:
    watch = RegionWatch()

    def stop(_outcome: object) -> None:
        watch.stop.set()

    with pytest.raises(StoppedError):
        run_region(
            region(place),
            None,
            RegionWatch(scene=lambda _: Watch(stop=watch.stop), ended=stop, stop=watch.stop),
        )
    assert not (place / "products/maps/b").exists()
    assert ran(place) == {"b": "mapped"}
    first = json.loads((place / "products/runs.jsonl").read_text().splitlines()[0])
    assert first["stopped"] and first["counts"]["mapped"] == 1 and first["exit_code"] is None
    assert not list((place / "products/.region/now").iterdir())


def test_a_run_that_an_error_ends_is_not_told_of_as_one_that_went_well(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MachineError("no space")

    monkeypatch.setattr("citycover.region.run.write_facts", full)
    with pytest.raises(MachineError):
        ran(place)
    (run,) = map(json.loads, (place / "products/runs.jsonl").read_text().splitlines())
    assert (run["stopped"], run["error"], run["exit_code"]) == (False, "no space", None)


def test_an_unfinished_scene_whose_image_changed_is_begun_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise MachineError("ended once its blocks were there")

    with monkeypatch.context() as patch:
        patch.setattr("citycover.run.job.publish", end)
        assert ran(place) == {"a": "failed", "b": "failed"}
    assert status_of(region(place)).counts == {"unfinished": 2}
    image(place / "im/a.tif", 9)
    assert ran(place) == {"a": "mapped", "b": "mapped"}
    straight = map_scene(region(place).request((str(place / "im/a.tif"),), place / "straight"))
    np.testing.assert_array_equal(classes(place / "products/maps/a"), classes(straight.folder))


def test_what_is_done_is_mapped_again_where_that_is_asked_for(place: Path, mapped: list[str]) -> None:
    ran(place)
    before = (place / "products/maps/a/run.json").read_bytes()
    mapped.clear()
    report = run_region(region(place), overwrite=True)
    assert [(o.scene, o.what, o.why) for o in report.outcomes] == [
        (name, "mapped", "--overwrite") for name in "ab"
    ]
    assert mapped == ["a", "b"] and report.done == 0
    assert (place / "products/maps/a/run.json").read_bytes() != before
    (earlier,) = (place / "products/earlier/a").iterdir()
    assert (earlier / "run.json").read_bytes() == before
    assert ran(place) == {}


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_begun_is_dropped_where_that_is_asked_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    def end(*_: object) -> None:
        raise MachineError("ended once its blocks were there")

    with monkeypatch.context() as patch:
        patch.setattr("citycover.run.job.publish", end)
        again = region(place).model_copy(update={"policy": Policy(retries=1)})
        (first, _) = run_region(again, restart=restart).outcomes
        assert first.what == "failed"
        for note in (place / "products").rglob("attempts.json"):
            assert len(json.loads(note.read_text())) == 2, "a scene that is tried again goes on"
    report = run_region(region(place), restart=restart)
    assert report.counts == {"mapped": 2, "done": 0}
    attempts = Product.read(place / "products/maps/a").run.attempts
    assert attempts == (1 if restart else 3)


def test_shards_and_names_and_limits(place: Path) -> None:
    asked = region(place)
    for k in (1, 2, 3):
        run_region(asked, Share(Shard(k, 3)))
    assert run_region(asked).done == 2
    with pytest.raises(ConfigError, match="no such scene; it has a, b"):
        run_region(asked, Share(only=("z",)))
    other = asked.model_copy(update={"out": place / "other"})
    assert len(run_region(other, Share(limit=1)).outcomes) == 1


@pytest.mark.parametrize("keep", [0, 2])
def test_earlier_products_are_kept_as_asked_and_what_is_not_ours_always(place: Path, keep: int) -> None:
    asked = region(place)
    kept = asked.model_copy(update={"policy": asked.policy.model_copy(update={"keep": keep})})
    for seed in range(4):
        image(place / "im/a.tif", 20 + seed)
        run_region(kept, Share(only=("a",)))
        if seed == 0:
            (place / "products/maps/a/notes.txt").write_text("mine")
    earlier = place / "products/earlier/a"
    assert len(list(earlier.glob("*/item.json"))) == keep
    assert not list(earlier.glob(".*"))
    assert [p.read_text() for p in earlier.glob("**/notes.txt")] == ["mine"]


def test_the_latest_of_earlier_products_are_kept_though_a_clock_was_set_back(place: Path) -> None:
    ran(place)
    earlier = place / "products/earlier/a"
    for number in range(3):
        image(place / "im/a.tif", 20 + number)
        product = classes(place / "products/maps/a")
        ran(place)
        (kept,) = earlier.iterdir()
        np.testing.assert_array_equal(classes(kept), product)
        record = place / "products/maps/a/run.json"  # as by a clock that was ahead, and ever less
        facts = json.loads(record.read_text())
        facts["finished"] = datetime(2030 - number, 1, 1, tzinfo=UTC).isoformat()
        record.write_text(json.dumps(facts))


def test_a_folder_of_something_else_is_refused(place: Path) -> None:
    (place / "products").mkdir()
    (place / "products/mine.txt").touch()
    with pytest.raises(ProductError, match=r"holds other content: mine\.txt"):
        ran(place)
    (place / "products/mine.txt").unlink()
    ran(place)
    with pytest.raises(ProductError, match="folder of the region 'north', not of 'south'"):
        ran(place, head=HEAD.replace("north", "south"))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}'])
def test_a_damaged_record_counts_as_none(place: Path, text: str) -> None:
    ran(place)
    (place / "products/.region/scenes/a.json").write_text(text)
    assert ran(place) == {"a": "mapped"}


def test_a_product_that_was_swapped_by_hand_is_made_anew(place: Path) -> None:
    ran(place)
    run = place / "products/maps/a/run.json"
    run.write_text(run.read_text() + "\n")
    assert ran(place) == {"a": "mapped"}


def test_what_a_run_would_do(place: Path) -> None:
    (place / "im/bad.tif").write_bytes(b"no raster")
    before = forecast_region(region(place))
    assert [(s.scene, s.state, s.pixels) for s in before.scenes] == [
        ("a", "new", 2000),
        ("b", "new", 2000),
        ("bad", "new", 0),
    ]
    assert before.seconds is None and "cannot be opened" in before.scenes[2].problem
    assert 0 < before.write_bytes < (before.free_bytes or 0)
    assert not (place / "products").exists()
    ran(place)
    image(place / "im/a.tif", 5)
    after = forecast_region(region(place))
    found = {scene.scene: scene.state for scene in after.scenes}
    assert found == {"a": "changed", "b": "done", "bad": "new"}
    assert after.pixels == 2000 and after.seconds is not None and after.seconds > 0


def test_where_a_region_stands_while_it_runs(place: Path) -> None:
    seen = []

    def look(_standing: object) -> Watch:
        seen.append(status_of(region(place)))
        return Watch()

    run_region(region(place), None, RegionWatch(scene=look))
    first, second = (status.now[0] for status in seen)
    assert (first.scene, first.ended, first.left_s) == ("a", 0, None)
    assert (second.scene, second.ended) == ("b", 1) and second.left_s is not None
    (place / "im/a.tif").unlink()
    after = status_of(region(place))
    assert after.counts == {"done": 1} and after.gone == ("a",) and after.now == () and len(after.runs) == 1


def test_what_somebody_puts_beside_earlier_products_crowds_none_out(place: Path) -> None:
    ran(place)
    for seed in (20, 21):
        (place / "products/earlier/a/notes").mkdir(parents=True, exist_ok=True)
        image(place / "im/a.tif", seed)
        assert ran(place) == {"a": "mapped"}
    assert len(list((place / "products/earlier/a").glob("*/item.json"))) == 1
    assert (place / "products/earlier/a/notes").is_dir()


def test_a_map_that_was_moved_and_linked_to_is_never_removed(place: Path) -> None:
    ran(place)
    link, elsewhere = place / "products/maps/a", place / "elsewhere"
    link.rename(elsewhere)
    link.symlink_to(elsewhere)
    for seed in (20, 21):
        image(place / "im/a.tif", seed)
        assert ran(place) == {"a": "mapped"}
    assert (elsewhere / "landcover.tif").is_file()
    ran(place)
    (place / "products/maps/b").rename(place / "b")
    (place / "products/maps/b").symlink_to(place / "nowhere")
    assert ran(place) == {"b": "mapped"}


def test_what_was_made_of_a_map_and_is_gone_is_made_again(place: Path, mapped: list[str]) -> None:
    asked = "[areas]\n[polygons]\n[refine]\nmajority = 9\n"
    ran(place, asked)
    mapped.clear()
    shutil.rmtree(place / "products/refined/a")
    (place / "products/polygons/b.gpkg").unlink()
    assert {s.why for s in status_of(region(place, asked)).standings} == {"refine", "polygons"}
    assert ran(place, asked) == {"a": "completed", "b": "completed"} and mapped == []
    assert (place / "products/refined/a/landcover.tif").is_file()
    assert (place / "products/polygons/b.gpkg").is_file() and ran(place, asked) == {}


def files_in(folder: Path) -> set[str]:
    """Names of all that lies there."""
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_polygons_and_areas_of_another_format_take_the_place_of_the_old_ones(
    place: Path, mapped: list[str]
) -> None:
    ran(place, '[areas]\n[polygons]\nformat = "geojsonl"\n')
    (place / "products/polygons/b.geojsonl").write_text("edited by hand")
    (place / "products/areas/a.parquet").write_text("somebody's")
    mapped.clear()
    asked = '[areas]\nformat = "json"\n[polygons]\nformat = "gpkg"\n'
    assert ran(place, asked) == {"a": "completed", "b": "completed"} and mapped == []
    assert files_in(place / "products/polygons") == {"a.gpkg", "b.gpkg", "b.geojsonl"}
    assert files_in(place / "products/areas") == {"a.json", "b.json", "a.parquet"}
    assert ran(place, asked) == {}
    (place / "im/a.tif").rename(place / "im/c.tif")
    assert ran(place, asked) == {"c": "renamed"}
    assert ran(place, "[areas]\n[polygons]\n") == {"b": "completed", "c": "completed"}
    assert files_in(place / "products/areas") == {"b.csv", "c.csv", "c.parquet"}


def test_what_a_section_made_that_is_no_more_goes_once_the_map_is_another_one(place: Path) -> None:
    parts = ("areas", "polygons", "refined")
    ran(place, '[areas]\n[polygons]\nformat = "geojsonl"\n[refine]\nmajority = 9\n')
    (place / "products/refined/b/notes.txt").write_text("somebody's")
    assert ran(place) == {}, "they are of the map that is there"
    assert files_in(place / "products/polygons") == {"a.geojsonl", "b.geojsonl"}
    for number, name in enumerate("ab"):
        image(place / f"im/{name}.tif", 7 + number)
    assert ran(place) == {"a": "mapped", "b": "mapped"}
    assert [files_in(place / "products" / part) for part in parts] == [set(), set(), {"b"}]
    assert files_in(place / "products/refined/b") == {"notes.txt"}
    image(place / "im/a.tif", 9)
    assert ran(place) == {"a": "mapped"}


def test_a_run_that_was_ended_while_a_refined_map_went_takes_the_rest_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(BaseException):
        pass

    def end(_product: Path) -> None:
        raise EndedError

    ran(place, "[refine]\nmajority = 9\n")
    image(place / "im/a.tif", 7)
    with monkeypatch.context() as patch:
        patch.setattr("citycover.region.earlier.drop_product", end)
        with pytest.raises(EndedError):
            ran(place)
    assert files_in(place / "products/refined") == {".a", "b"}
    assert ran(place) == {"a": "mapped"}
    assert files_in(place / "products/refined") == {"b"}


def test_a_renamed_scene_takes_over_from_what_an_earlier_one_left(place: Path) -> None:
    ran(place, "[areas]\n")
    table = (place / "products/areas/a.csv").read_text()
    (place / "products/areas/c.csv").write_text("of another time")
    (place / "products/maps/c").mkdir()
    (place / "im/a.tif").rename(place / "im/c.tif")
    (outcome,) = run_region(region(place, "[areas]\n")).outcomes
    assert outcome.what == "failed" and "maps/c is there" in outcome.message
    (place / "products/maps/c").rmdir()
    assert ran(place, "[areas]\n") == {"c": "renamed"}
    assert (place / "products/areas/c.csv").read_text() == table
    assert not (place / "products/areas/a.csv").exists() and ran(place, "[areas]\n") == {}


def test_a_model_that_was_another_one_for_the_while_of_a_run(place: Path, mapped: list[str]) -> None:
    good, bad = (find_model(f"spectral-{name}").read_bytes() for name in ("rgbn", "rgb"))
    model, head = place / "m.citycover", HEAD.replace("spectral-rgbn", "m.citycover")
    model.write_bytes(good)
    asked = region(place, head=head)

    def swap(standing: Any) -> Watch:
        model.write_bytes(bad if standing.scene.name == "a" else good)
        return Watch()

    run_region(asked, None, RegionWatch(scene=swap))
    mapped.clear()
    assert ran(place, head=head) == {"a": "mapped"} and mapped == ["a"]
    assert ran(place, head=head) == {}


def test_a_folder_that_lost_its_name_goes_on(place: Path) -> None:
    ran(place)
    (place / "products/.region/region.json").write_text("{")
    with pytest.raises(ProductError, match="remove it"):
        ran(place)
    (place / "products/.region/region.json").unlink()
    for part in ("locks", "failures", "now", "next"):
        shutil.rmtree(place / "products/.region" / part)
    (place / "im/b.tif").write_bytes(b"")
    assert ran(place) == {"b": "failed"}


def test_a_run_that_was_killed_is_not_under_way_and_a_cut_history_goes_on(place: Path) -> None:
    ran(place)
    folder = RegionFolder(place / "products")
    NowFile(folder, Now("1-of-1", datetime.now(UTC), 2)).note()
    assert folder.now_of("1-of-1").is_file() and status_of(region(place)).now == ()
    folder.failure_of("a").write_text("{")
    with folder.history.open("a") as file:
        file.write('{"counts": 5}\n{"started"')
    ran(place)
    status = status_of(region(place))
    assert status.now == () and "remove it" in status.failures["a"]["message"]
    assert [run["counts"] for run in status.runs] == [{"mapped": 2, "done": 0}, {"done": 2}]


def test_what_another_run_has_just_put_in_its_place_stays(place: Path) -> None:
    ran(place)
    with pytest.raises(HeldError, match="another run has just put a"):
        RegionFolder(place / "products").place("a", 1)
    assert (place / "products/maps/a/item.json").is_file()


def test_a_scene_that_fails_bars_no_other_from_a_limit(place: Path) -> None:
    (place / "im/a.tif").write_bytes(b"no raster")
    told = [run_region(region(place), Share(limit=1)).outcomes for _ in range(3)]
    assert [[(o.scene, o.what) for o in outcomes] for outcomes in told] == [
        [("a", "failed")],
        [("b", "mapped")],
        [("a", "failed")],
    ]


def test_an_index_that_names_other_files_is_another_scene(place: Path, mapped: list[str]) -> None:
    index = place / "t.geojson"
    head = HEAD + '[[scenes]]\nfiles = ["t.geojson"]\n'
    index.write_text(tiles("a"))
    assert ran(place, head=head)["t"] == "mapped"
    mapped.clear()
    index.write_text(tiles("b"))
    assert ran(place, head=head) == {"t": "mapped"} and mapped == ["t"]


def tiles(name: str) -> str:
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    tile = {
        "type": "Feature",
        "properties": {"location": f"im/{name}.tif"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    return json.dumps({"type": "FeatureCollection", "features": [tile]})


def test_a_product_whose_record_is_damaged_is_replaced(place: Path) -> None:
    ran(place)
    (place / "products/maps/a/run.json").write_text("{")
    assert ran(place) == {"a": "mapped"} and ran(place) == {}


def test_sheets_of_labels_are_those_from_the_file_on_and_count_with_their_content(place: Path) -> None:
    (place / "lab").mkdir()
    more = '[labels]\nfiles = ["lab/*.tif", "worldcover"]\n'
    asked = region(place, more)
    assert asked.labels is not None and asked.labels.files == (str(place / "lab/*.tif"), "worldcover")
    digests = [settings_of(asked).map["labels"]]
    for seed in (1, 2):
        image(place / "lab/x.tif", seed)
        digests.append(settings_of(asked).map["labels"])
    assert len(set(digests)) == 3


def test_no_scene_is_mapped_anew_because_there_are_forms(place: Path) -> None:
    def digest(**engine: Any) -> str:
        return settings_of(region(place).model_copy(update={"engine": EngineOptions(**engine)})).map["engine"]

    assert digest() == digest(form="auto") == "c9666fb8992ab6fe", "as before there were any"
    assert len({digest(), digest(form="torchscript"), digest(form="openvino")}) == 3


def test_a_shapefile_of_zones_counts_with_the_files_beside_it(place: Path) -> None:
    more = '[areas]\nzones = "z.shp"\nby = "name"\n'
    (place / "z").mkdir()
    (place / "z.shp").write_bytes(b"shapes")
    digests = []
    for names in (b"east", b"west"):
        (place / "z.dbf").write_bytes(names)
        digests.append(settings_of(region(place, more)).after["areas"])
    assert digests[0] != digests[1]


def test_a_scene_whose_blocks_cannot_be_written_does_not_stop_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failed = StoreSink.write, []

    def fail_once(sink: StoreSink, finished: object) -> None:
        if not failed:
            failed.append(finished)
            raise MachineError("no space")
        write(sink, finished)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreSink, "write", fail_once)
    stop = threading.Event()
    report = run_region(region(place), None, RegionWatch(scene=lambda _: Watch(stop=stop), stop=stop))
    assert [outcome.what for outcome in report.outcomes] == ["failed", "mapped"]
