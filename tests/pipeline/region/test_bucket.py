"""A region in an object store: what a folder promises, without renames and on any number of machines."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray
import zarr
from bucket import BUCKET, Bucket, busy_before, point_at, serving_bucket
from conftest import write_scene
from stores import write_arrays, zip_store

import citycover
from citycover.errors import ConfigError, HeldError, ProductError
from citycover.files import lease as module
from citycover.files.lease import hold_lease
from citycover.files.remote import RemotePath, matching, place_of
from citycover.model import loading
from citycover.model.predictor import ModelPredictor
from citycover.product.open import open_product
from citycover.region import run as running
from citycover.region.bucket import RegionBucket
from citycover.region.config import Region, read_region
from citycover.region.run import RegionWatch, Share, run_region
from citycover.region.scenes import Shard
from citycover.region.status import status_of

OUT = f"s3://{BUCKET}/north"

REGION = f"""name = "north"
out = "{OUT}"
model = "spectral-rgbn"
[[scenes]]
files = ["s3://{BUCKET}/im/*.tif"]
[engine]
precision = "fp32"
threads = 1
[policy]
retries = 0
[areas]
format = "csv"
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """Two scenes in a bucket."""
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        for number, name in enumerate("ab"):
            put(tmp_path, name, number)
        yield bucket


def put(tmp_path: Path, name: str, seed: int) -> None:
    values = np.random.default_rng(seed).integers(30, 220, (4, 40, 50), np.uint8)
    path = write_scene(tmp_path / f"{name}.tif", (40, 50), values=values)
    place(f"im/{name}.tif").write(path)


def place(key: str) -> RemotePath:
    found = place_of(f"s3://{BUCKET}/{key}")
    assert isinstance(found, RemotePath)
    return found


def region(tmp_path: Path, *changes: tuple[str, str]) -> Region:
    text = REGION
    for old, new in changes:
        text = text.replace(old, new)
    (tmp_path / "region.toml").write_text(text)
    return read_region(tmp_path / "region.toml")


def ran(asked: Region, share: Share | None = None) -> dict[str, str]:
    return {outcome.scene: outcome.what for outcome in run_region(asked, share).outcomes}


def keys(bucket: Bucket, prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in bucket.objects if key.startswith(prefix)}


def test_what_is_new_or_changed_is_mapped_and_the_rest_left_alone(bucket: Bucket, tmp_path: Path) -> None:
    asked = region(tmp_path)
    assert ran(asked) == {"a": "mapped", "b": "mapped"}
    assert {"a/item.json", "b/item.json", "collection.json"} <= keys(bucket, "north/maps/")
    assert keys(bucket, "north/areas/") == {"a.csv", "b.csv"}
    assert ran(asked) == {}
    put(tmp_path, "a", 7)
    before = bucket.objects["north/maps/a/landcover.tif"]
    bucket.changes.clear()
    assert ran(asked) == {"a": "mapped"}
    assert bucket.objects["north/maps/a/landcover.tif"] != before
    lines = [json.loads(line) for line in bucket.objects["north/runs.jsonl"].splitlines()]
    assert [line["counts"]["done"] for line in lines] == [0, 2, 1]
    assert not keys(bucket, "north/.region/locks/") and not keys(bucket, "north/.region/now/")
    assert list((tmp_path / "cache").rglob("*.tif")) == []
    # Of a product that is replaced the entry goes first, and comes last.
    prefix = "north/maps/a/"
    changes = [(how, key.removeprefix(prefix)) for how, key in bucket.changes if key.startswith(prefix)]
    assert changes[:2] == [("PUT", ".uploading.json"), ("DELETE", "item.json")]
    assert changes[-2:] == [("PUT", "item.json"), ("DELETE", ".uploading.json")]


def test_products_are_those_of_a_folder_also_of_a_store_that_is_busy(bucket: Bucket, tmp_path: Path) -> None:
    bucket.one_in = 10
    one, tidy = Share(only=("a",)), ("[areas]", "[refine]\nmin_area = 4\n[areas]")
    assert ran(region(tmp_path, tidy), one) == {"a": "mapped"}
    assert ran(region(tmp_path, tidy, (OUT, "here")), one) == {"a": "mapped"}
    for part in ("maps", "refined"):
        with open_product(f"{OUT}/{part}/a") as far, open_product(tmp_path / f"here/{part}/a") as near:
            np.testing.assert_array_equal(far.classes, near.classes)
    assert bucket.objects["north/areas/a.csv"] == (tmp_path / "here/areas/a.csv").read_bytes()
    assert ran(region(tmp_path, tidy), one) == {}


def test_a_product_that_none_takes_the_place_of_goes(bucket: Bucket, tmp_path: Path) -> None:
    ran(region(tmp_path))
    bucket.objects["north/maps/a/notes.txt"] = b"somebody's"
    bucket.changes.clear()
    RegionBucket(place("north")).put_aside("a", 1)
    assert [(how, key.rpartition("/")[2]) for how, key in bucket.changes[:2]] == [
        ("PUT", ".uploading.json"),
        ("DELETE", "item.json"),
    ]
    assert keys(bucket, "north/maps/a/") == {"notes.txt"} and keys(bucket, "north/maps/b/")
    RegionBucket(place("north")).put_aside("c", 1)


def test_what_was_made_of_a_map_and_is_no_longer_wanted_goes(bucket: Bucket, tmp_path: Path) -> None:
    tidy = ("[areas]", "[refine]\nmin_area = 4\n[areas]")
    assert ran(region(tmp_path, tidy)) == {"a": "mapped", "b": "mapped"}
    bucket.objects["north/areas/b.csv"] = b"edited by hand"
    assert ran(region(tmp_path, tidy, ('"csv"', '"json"'))) == {"a": "completed", "b": "completed"}
    assert keys(bucket, "north/areas/") == {"a.json", "b.json", "b.csv"}
    put(tmp_path, "a", 7)
    assert ran(region(tmp_path, ('[areas]\nformat = "csv"\n', ""))) == {"a": "mapped"}
    assert keys(bucket, "north/areas/") == {"b.json", "b.csv"}
    assert {name.partition("/")[0] for name in keys(bucket, "north/refined/")} == {"b"}


@pytest.mark.parametrize("work", ["", f'\nwork = "s3://{BUCKET}/work"'])
def test_all_scenes_are_mapped_by_the_network_that_is_loaded_once(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    loaded: list[Path] = []

    def counted(path: Path, *given: Any, **named: Any) -> ModelPredictor:
        loaded.append(path)
        return load(path, *given, **named)

    load = ModelPredictor.load
    monkeypatch.setattr(loading, "_last", {})
    monkeypatch.setattr(ModelPredictor, "load", counted)
    assert ran(region(tmp_path, ("[engine]", f"[engine]{work}"))) == {"a": "mapped", "b": "mapped"}
    assert len(loaded) == 1
    assert any(key.startswith("work/") for _, key in bucket.changes) == bool(work)
    with rioxarray.open_rasterio(tmp_path / "a.tif") as image:
        citycover.predict_array(image, "spectral-rgbn").compute()
    assert len(loaded) == 1, "arrays are mapped by it, too"


def test_a_run_that_was_ended_before_it_noted_its_product_does_not_make_it_again(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(BaseException):
        pass

    def end(*_: object) -> None:
        raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr(running, "record_of", end)
        with pytest.raises(EndedError):
            run_region(region(tmp_path))
    product = bucket.objects["north/maps/a/run.json"]
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    assert ran(region(tmp_path))["a"] == "mapped"
    assert bucket.objects["north/maps/a/run.json"] == product


def test_another_scene_of_the_same_content_takes_the_product_over(bucket: Bucket, tmp_path: Path) -> None:
    local = (f"s3://{BUCKET}/im/*.tif", "im/*.tif")
    (tmp_path / "im").mkdir()
    write_scene(tmp_path / "im/a.tif", (40, 50))
    ran(region(tmp_path, local))
    record = bucket.objects["north/maps/a/run.json"]
    (tmp_path / "im/a.tif").rename(tmp_path / "im/z.tif")
    assert ran(region(tmp_path, local)) == {"z": "renamed"}
    assert bucket.objects["north/maps/z/run.json"] == record
    assert not keys(bucket, "north/maps/a/") and keys(bucket, "north/areas/") == {"z.csv"}
    assert ran(region(tmp_path, local)) == {}


def test_parts_of_a_region_end_together(bucket: Bucket, tmp_path: Path) -> None:
    asked = region(tmp_path)
    found: list[dict[str, str]] = []
    threads = [
        threading.Thread(target=lambda part: found.append(ran(asked, Share(part))), args=(Shard(index, 3),))
        for index in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: what for part in found for name, what in part.items()} == dict.fromkeys("ab", "mapped")
    assert len(bucket.objects["north/runs.jsonl"].splitlines()) == 3


def test_status_tells_of_a_run_that_is_under_way(bucket: Bucket, tmp_path: Path) -> None:
    asked = region(tmp_path)
    seen: list[Any] = []

    def look(_outcome: object) -> None:
        seen.append(status_of(asked))

    run_region(asked, None, RegionWatch(ended=look))
    assert [now.scene for now in seen[0].now] == ["a"] and seen[0].counts == {"done": 1, "new": 1}
    after = status_of(asked)
    assert not after.now and after.counts == {"done": 2} and len(after.runs) == 1


def test_a_prefix_of_something_else_is_left_alone(bucket: Bucket, tmp_path: Path) -> None:
    bucket.objects["north/letter.txt"] = b"mine"
    with pytest.raises(ProductError, match="holds other content"):
        run_region(region(tmp_path))
    del bucket.objects["north/letter.txt"]
    RegionBucket(place("north")).prepare("south")
    with pytest.raises(ProductError, match="the region 'south'"):
        run_region(region(tmp_path))


@pytest.mark.parametrize("kind", ["there", "here", "zipped"])
def test_a_store_by_pattern_is_mapped_once_and_again_after_it_changed(
    bucket: Bucket, tmp_path: Path, kind: str
) -> None:
    names, image = ("red", "green", "blue", "nir"), np.arange(2000, dtype=np.uint16).reshape(40, 50) % 190
    store = write_arrays(
        tmp_path / "im/c.zarr", dict.fromkeys(names, image.astype(np.uint8)), chunks=(40, 50)
    )

    def settle() -> None:
        """Bring the store to where the region looks for it."""
        if kind == "zipped":
            zip_store(store).rename(tmp_path / "im/c.zarr.zip")
        for file in store.rglob("*") if kind == "there" else ():
            if file.is_file():
                bucket.objects[f"im/{file.relative_to(store.parent)}"] = file.read_bytes()

    settle()
    pattern = {"there": f"s3://{BUCKET}/im/*.zarr", "here": "im/*.zarr", "zipped": "im/*.zip"}[kind]
    asked = region(tmp_path, (f"s3://{BUCKET}/im/*.tif", pattern))
    assert [ran(asked) for _ in range(2)] == [{"c": "mapped"}, {}]
    zarr.open_array(store / "red")[0] = 7
    settle()
    assert [ran(asked) for _ in range(2)] == [{"c": "mapped"}, {}]


def test_patterns_mean_what_they_mean_on_a_disk(bucket: Bucket) -> None:
    bucket.objects |= dict.fromkeys(("im/x/c.tif", "im/x/y/d.tif", "im/note.txt"), b"")

    def found(pattern: str) -> list[str]:
        return [address.removeprefix(f"s3://{BUCKET}/") for address in matching(f"s3://{BUCKET}/{pattern}")]

    assert found("im/*.tif") == ["im/a.tif", "im/b.tif"]
    assert found("im/*/*.tif") == ["im/x/c.tif"]
    assert found("im/**/*.tif") == ["im/a.tif", "im/b.tif", "im/x/c.tif", "im/x/y/d.tif"]
    assert found("im/x*/c.*") == ["im/x/c.tif"]
    stores = ("im/s.zarr/zarr.json", "im/s.zarr/red/c/0/0", "im/s.zarr/x.tif", "im/x/t.zarr/red/zarr.json")
    bucket.objects |= dict.fromkeys(stores, b"")
    assert found("im/*.zarr") == ["im/s.zarr"]
    assert found("im/**/*.zarr") == ["im/s.zarr", "im/x/t.zarr"]
    assert found("im/s*") == ["im/s.zarr"] and found("im/**/x.tif") == []
    with pytest.raises(ConfigError, match="needs a folder"):
        found("*.tif")


def test_parts_of_other_counts_are_kept_apart_and_the_dead_bar_nobody(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    asked = region(tmp_path)
    other = place("north/.region/locks/2-of-3.json")
    with (
        hold_lease(other, "leave", threading.Event()),
        pytest.raises(HeldError, match="works on part 2/3"),
    ):
        ran(asked)
    place("north/.region/locks/1-of-2.json").write(b"{}")  # of a run that was killed
    assert ran(asked) == {"a": "mapped", "b": "mapped"}
    assert not keys(bucket, "north/.region/locks/")


def test_a_scene_that_changed_while_it_was_unfinished_is_begun_anew(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    real = running._made

    def noted(*given: Any, anew: bool) -> Any:
        made.append(anew)
        return real(*given, anew=anew)

    def end(*_: object) -> None:
        raise ProductError("ended once its blocks were there")

    monkeypatch.setattr(running, "_made", noted)
    one = Share(only=("a",))
    with monkeypatch.context() as patch:
        patch.setattr("citycover.run.job.publish", end)
        assert ran(region(tmp_path), one) == ran(region(tmp_path), one) == {"a": "failed"}
    put(tmp_path, "a", 7)
    assert ran(region(tmp_path), one) == {"a": "mapped"}
    assert made == [True, False, True]
    assert ran(region(tmp_path, (OUT, "here")), one) == {"a": "mapped"}
    with open_product(f"{OUT}/maps/a") as far, open_product(tmp_path / "here/maps/a") as near:
        np.testing.assert_array_equal(far.classes, near.classes)
    assert not keys(bucket, "north/.region/begun/")


@pytest.mark.parametrize("shared", [True, False])
def test_a_scene_that_one_host_began_is_gone_on_with_by_another_where_blocks_lie_in_the_bucket(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    def end(*_: object) -> None:
        raise ProductError("ended once its blocks were there")

    work = ("[engine]", f'[engine]\nwork = "s3://{BUCKET}/work"')
    asked, one = region(tmp_path, *([work] if shared else [])), Share(only=("a",))
    with monkeypatch.context() as patch:
        patch.setattr("citycover.run.job.publish", end)
        assert ran(asked, one) == {"a": "failed"}
    blocks = keys(bucket, "work/")
    assert bool(blocks) == shared
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr("socket.gethostname", lambda: "other")
    bucket.changes.clear()
    assert ran(asked, one) == {"a": "mapped"}
    written = {key for how, key in bucket.changes if how == "PUT" and "/store.zarr/" in key}
    assert not written, "blocks that were there are not made again"
    assert not keys(bucket, "work/")
    without = region(tmp_path, (OUT, "here"))
    assert ran(without, one) == {"a": "mapped"}
    with open_product(f"{OUT}/maps/a") as far, open_product(tmp_path / "here/maps/a") as near:
        np.testing.assert_array_equal(far.classes, near.classes)


def test_two_who_write_at_once_do_not_lose_each_others_line(bucket: Bucket) -> None:
    there = RegionBucket(place("north"))
    threads = [
        threading.Thread(target=there.note_run, args=({"run": number, "counts": {}},)) for number in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = bucket.objects["north/runs.jsonl"].decode().splitlines()
    assert sorted(json.loads(line)["run"] for line in lines) == [0, 1, 2, 3, 4]


@pytest.mark.skipif("CITYCOVER_S3" not in os.environ, reason="CITYCOVER_S3 names no server to try it with")
def test_another_server_takes_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CITYCOVER_S3=http://127.0.0.1:5000`, as of `moto_server`."""
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    url = os.environ["CITYCOVER_S3"]
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
        pass
    with busy_before(url, one_in=10) as busy:
        point_at(busy, monkeypatch)
        for number, name in enumerate("ab"):
            put(tmp_path, name, number)
        asked = region(tmp_path)
        assert ran(asked) == {"a": "mapped", "b": "mapped"}
        assert ran(asked) == {}
        put(tmp_path, "a", 7)
        assert ran(asked) == {"a": "mapped"}
        assert status_of(asked).counts == {"done": 2}
