"""A map that goes to an object store: whole or not to be seen, however it is interrupted."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bucket import BUCKET, Bucket, point_at, serving_bucket
from conftest import write_scene

from citycover.derive.areas import zonal_areas
from citycover.derive.compare import compare
from citycover.derive.refine import Steps, refine
from citycover.errors import ConfigError, FinishedError, MachineError, ProductError, SceneError, StoppedError
from citycover.files import remote
from citycover.files.remote import place_of
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
from citycover.job.watch import Watch
from citycover.product.collection import collect
from citycover.product.open import open_product
from citycover.product.product import Product
from citycover.product.upload import MARK, RemoteFolder, upload
from citycover.run.map import map_scene

PLACE = f"s3://{BUCKET}/2026/city"
PREFIX = "2026/city/"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        yield bucket


@pytest.fixture
def request_there(tmp_path: Path) -> MapRequest:
    scene = write_scene(tmp_path / "scene.tif", (200, 300))
    engine = EngineOptions(window=256, batch=1, precision="fp32", threads=1)
    return MapRequest(Imagery((str(scene),)), PLACE, "spectral-rgbn", engine=engine)


def names(bucket: Bucket) -> set[str]:
    return {key.removeprefix(PREFIX) for key in bucket.objects}


@pytest.mark.parametrize("formats", [("cog",), ("cog", "zarr")])
def test_a_product_there_is_that_of_a_folder(
    bucket: Bucket, request_there: MapRequest, tmp_path: Path, formats: tuple[str, ...]
) -> None:
    asked = replace(request_there, product=ProductOptions(formats=formats))
    here = map_scene(replace(asked, out=tmp_path / "here"))
    there = map_scene(asked)
    assert isinstance(here.folder, Path)
    listed = {p.relative_to(here.folder).as_posix() for p in here.folder.rglob("*") if p.is_file()}
    assert names(bucket) == listed
    for name in ("landcover.tif", "confidence.tif", "landcover.qml"):
        assert bucket.objects[PREFIX + name] == (here.folder / name).read_bytes()
    with open_product(PLACE) as far, open_product(here.folder) as near:
        one, other = far.compute(), near.compute()
    for layer in ("classes", "confidence"):
        np.testing.assert_array_equal(one[layer], other[layer])
    assert one.rio.crs == other.rio.crs and one.rio.transform() == other.rio.transform()
    assert json.loads(bucket.objects[PREFIX + "run.json"])["request"]["out"] == PLACE
    assert {str(f) for f in there.files} == {f"{PLACE}/{p.name}" for p in here.files}
    assert Product.read(PLACE).areas() == here.areas()
    assert "data:image/webp" in there._repr_html_()
    assert not list((tmp_path / "cache/out").iterdir()), "what lay here has gone"


def test_the_sign_comes_last_and_goes_first(bucket: Bucket, request_there: MapRequest) -> None:
    map_scene(request_there)
    methods = [(method, key.removeprefix(PREFIX)) for method, key in bucket.changes]
    assert methods[0] == ("PUT", MARK)
    assert methods[-2:] == [("PUT", "item.json"), ("DELETE", MARK)]
    bucket.objects[PREFIX + "entropy.tif"] = b"of an older product"
    bucket.changes.clear()
    seen: list[bool] = []
    bucket.on_put = lambda key: seen.append(key == PREFIX + MARK or "item.json" not in names(bucket))
    map_scene(replace(request_there, product=ProductOptions(overwrite=True)))
    assert all(seen) and len(seen) > 5
    assert [c for c in bucket.changes if c[0] == "DELETE"] == [
        ("DELETE", PREFIX + "item.json"), ("DELETE", PREFIX + "entropy.tif"), ("DELETE", PREFIX + MARK),
    ]  # fmt: skip


def test_a_finished_product_stays(bucket: Bucket, request_there: MapRequest) -> None:
    map_scene(request_there)
    bucket.changes.clear()
    with pytest.raises(FinishedError, match="finished and identical"):
        map_scene(request_there)
    with pytest.raises(ProductError, match="differs from this one in"):
        map_scene(replace(request_there, layers=("entropy",)))
    assert not bucket.changes


def test_an_upload_that_was_stopped_goes_on_and_sends_no_file_twice(
    bucket: Bucket, request_there: MapRequest
) -> None:
    stop = threading.Event()
    put: list[str] = []

    def on_put(key: str) -> None:
        put.append(key)
        if len(put) == 4:
            stop.set()

    bucket.on_put = on_put
    with pytest.raises(StoppedError):
        map_scene(request_there, Watch(stop=stop))
    assert "item.json" not in names(bucket) and MARK in names(bucket)
    with pytest.raises(SceneError, match=r"item\.json"):
        open_product(PLACE)
    blocks: list[object] = []
    map_scene(request_there, Watch(advanced=blocks.append))
    assert not blocks, "nothing is mapped twice"
    twice = {key for key in put if put.count(key) > 1}
    assert twice <= {PREFIX + MARK}
    assert MARK not in names(bucket)
    with open_product(PLACE) as opened:
        assert opened.classes.shape == (200, 300)


@pytest.mark.parametrize("replacing", [False, True])
def test_who_slept_before_the_sign_went_leaves_what_can_be_gone_on_with(
    bucket: Bucket,
    request_there: MapRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replacing: bool,
) -> None:
    """Another run finishes while it sleeps; when it wakes it does one thing more, and is stopped."""
    finished = map_scene(replace(request_there, out=tmp_path / "here"))
    place = place_of(PLACE)
    assert isinstance(place, remote.RemotePath)
    if replacing:
        upload(finished, RemoteFolder.look(place), tmp_path / "before.jsonl", threading.Event())
    stop, write = threading.Event(), remote.RemotePath.write

    def sleep_after_the_mark(self: remote.RemotePath, content: bytes | Path) -> str | None:
        tag = write(self, content)
        if str(self).endswith(MARK) and not stop.is_set():
            stop.set()
            upload(finished, RemoteFolder.look(place), tmp_path / "other.jsonl", threading.Event())
            assert "item.json" in names(bucket) and MARK not in names(bucket)
        return tag

    monkeypatch.setattr(remote.RemotePath, "write", sleep_after_the_mark)
    with pytest.raises(StoppedError):
        upload(finished, RemoteFolder.look(place), tmp_path / "notes.jsonl", stop)
    left = RemoteFolder.look(place)
    assert left.finished or MARK in left.objects
    upload(finished, left, tmp_path / "third.jsonl", threading.Event())
    assert "item.json" in names(bucket) and MARK not in names(bucket)


def test_another_machine_may_take_an_unfinished_upload_over(
    bucket: Bucket, request_there: MapRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop = threading.Event()
    bucket.on_put = lambda _key: stop.set()
    with pytest.raises(StoppedError):
        map_scene(request_there, Watch(stop=stop))
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "other"))
    map_scene(request_there)
    assert "item.json" in names(bucket)


def test_what_is_not_of_citycover_is_never_touched(bucket: Bucket, request_there: MapRequest) -> None:
    bucket.objects[PREFIX + "preview.png"] = b"of somebody"
    with pytest.raises(ProductError, match=r"holds other content: preview\.png"):
        map_scene(request_there)
    assert not bucket.changes
    bucket.objects = {"2026/city-2/item.json": b"a neighbour"}
    map_scene(request_there)
    assert bucket.objects["2026/city-2/item.json"] == b"a neighbour"


def test_a_busy_store_is_asked_again(bucket: Bucket, request_there: MapRequest) -> None:
    bucket.busy = 3
    bucket.on_put = lambda key: setattr(bucket, "busy", 2) if key.endswith("confidence.tif") else None
    map_scene(request_there)
    assert "item.json" in names(bucket)


def test_what_a_store_refuses_is_said(
    bucket: Bucket, request_there: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="there is no bucket 'nowhere'; make it"):
        map_scene(replace(request_there, out="s3://nowhere/a"))
    bucket.denied = True
    with pytest.raises(MachineError, match=r"access is denied.*set AWS_ACCESS_KEY_ID") as error:
        map_scene(request_there)
    assert "secret" not in str(error.value).replace("AWS_SECRET_ACCESS_KEY", "")
    bucket.denied, bucket.busy = False, 10**6
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 1})
    with pytest.raises(MachineError, match=r"the object store does not do it.*503"):
        map_scene(request_there)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match="look at AWS_ENDPOINT_URL"):
        open_product(PLACE)


@pytest.mark.parametrize(
    "place", ["s3://", "s3://bucket", "s3://bucket/", "s3://b/a//c", "s3://b/../c", "gs://b/c"]
)
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="give a folder, or s3://BUCKET/PREFIX"):
        place_of(place)


@pytest.mark.skipif("CITYCOVER_S3" not in os.environ, reason="CITYCOVER_S3 names no server to try it with")
def test_another_server_takes_it_too(
    request_there: MapRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`CITYCOVER_S3=http://127.0.0.1:5000`, as of `moto_server`."""
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    url = os.environ["CITYCOVER_S3"]
    point_at(url, monkeypatch)
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
        pass
    asked = replace(request_there, product=ProductOptions(formats=("cog", "zarr"), overwrite=True))
    here = map_scene(replace(asked, out=tmp_path / "here"))
    map_scene(asked)
    map_scene(replace(asked, layers=("entropy",)))
    map_scene(asked)
    assert isinstance(here.folder, Path)
    with open_product(PLACE) as far, open_product(here.folder) as near:
        np.testing.assert_array_equal(far.classes, near.classes)
    assert list(zonal_areas(PLACE).rows()) == list(zonal_areas(here.folder).rows())
    assert not compare(here.folder, PLACE).whole.changed
    assert refine(PLACE, f"{PLACE}-tidy", Steps(majority=3)).changed
    assert len(collect(PLACE.removesuffix("/city")).products) == 2
    with pytest.raises(FinishedError):
        map_scene(replace(asked, product=ProductOptions(formats=("cog", "zarr"))))
    big = place_of(f"{PLACE}-big/large.bin")
    assert not isinstance(big, Path)
    (tmp_path / "large.bin").write_bytes(np.random.default_rng(0).bytes(12 << 20))
    big.write(tmp_path / "large.bin")
    assert big.read_bytes() == (tmp_path / "large.bin").read_bytes()
