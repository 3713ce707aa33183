"""A run whose blocks lie in a bucket: the same map, from any machine, by one run at a time."""

from __future__ import annotations

import errno
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from bucket import BUCKET, Bucket, busy_before, point_at, serving_bucket
from conftest import write_scene

from citycover.compute import patience
from citycover.errors import (
    ConfigError,
    FinishedError,
    HeldError,
    MachineError,
    ProductError,
    SceneError,
    StoppedError,
)
from citycover.files import lease, remote
from citycover.files.failures import is_passing
from citycover.files.remote import RemotePath
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
from citycover.job.watch import Watch
from citycover.product.product import Product
from citycover.run.map import map_scene
from citycover.store.far import FarWork
from citycover.store.store import WorkingStore

WORK = f"s3://{BUCKET}/work"
PLACE = f"s3://{BUCKET}/2026/city"
RASTERS = ("landcover.tif", "confidence.tif", "probabilities.tif")
BLOCKS = 4


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        yield bucket


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", (800, 700))


@pytest.fixture
def asked(scene: Path, tmp_path: Path) -> MapRequest:
    """A map of four blocks, which are kept in the bucket."""
    return request_of(scene, tmp_path / "out")


def request_of(scene: Path, out: Path) -> MapRequest:
    engine = EngineOptions(window=256, batch=1, precision="fp32", threads=1, block=(512, 512), work=WORK)
    imagery = Imagery((str(scene),))
    return MapRequest(imagery, out, "spectral-rgbn", engine=engine, layers=("probabilities",))


@pytest.fixture(scope="module")
def plain(scene: Path) -> dict[str, bytes]:
    """Rasters of the same map without a bucket."""
    asked = request_of(scene, scene.parent / "plain")
    return content(map_scene(replace(asked, engine=replace(asked.engine, work=None))))


def content(product: Product) -> dict[str, bytes]:
    return {name: (product.folder / name).read_bytes() for name in RASTERS}


def kept(bucket: Bucket) -> set[str]:
    """What lies in the bucket of unfinished runs, but for the folder of each."""
    return {key.split("/", 2)[2] for key in bucket.objects if key.startswith("work/")}


def stopped_after(count: int, **more: Any) -> Watch:
    """A watch that stops a run after so many blocks, before another one is kept, however fast it is."""
    seen = list[object]()

    def advanced(block: object) -> None:
        seen.append(block)
        if len(seen) == count:
            raise StoppedError

    return Watch(advanced=advanced, **more)


def test_blocks_in_a_bucket_make_the_same_product_and_go_in_the_end(
    bucket: Bucket, asked: MapRequest, plain: dict[str, bytes], tmp_path: Path
) -> None:
    asked = replace(asked, product=ProductOptions(formats=("cog", "zarr")))
    here = map_scene(asked)
    assert content(here) == plain and here.run.given.request["engine"]["work"] == WORK
    assert any("/store.zarr/classes/c/" in key for _, key in bucket.changes)
    assert not bucket.objects, "nothing is left there"
    assert not (tmp_path / "out/.work").exists()
    there = map_scene(replace(asked, out=PLACE))
    assert content(there) == plain and not kept(bucket)
    inside = [path for path in (tmp_path / "out/landcover.zarr").rglob("*") if path.is_file()]
    whole = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in inside}
    assert {name: bucket.objects[f"2026/city/{name}"] for name in whole} == whole


def test_another_machine_goes_on_with_what_one_began(
    bucket: Bucket,
    asked: MapRequest,
    plain: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked = replace(asked, out=PLACE)
    with pytest.raises(StoppedError):
        map_scene(asked, stopped_after(1))
    ledger = {key for key in kept(bucket) if key.startswith("ledger-")}
    assert 1 <= len(ledger) < BLOCKS and "lock" not in kept(bucket)
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "other"))
    made: list[object] = []
    product = map_scene(asked, Watch(advanced=made.append))
    assert content(product) == plain
    assert len(made) == BLOCKS - len(ledger) and product.run.attempts == 2
    assert not kept(bucket) and not list((tmp_path / "other/out").iterdir())


def test_going_on_reads_each_entry_of_the_ledger_once_and_once_to_prove_it(
    bucket: Bucket, asked: MapRequest
) -> None:
    def entries() -> list[str]:
        return [key for key in bucket.reads if "/ledger-" in key and key.endswith(".json")]

    with pytest.raises(StoppedError):
        map_scene(asked, stopped_after(2))
    there = {key for key in bucket.objects if "/ledger-" in key}
    begun: list[str] = []

    def advanced(_block: object) -> None:
        begun[:] = begun or entries()

    bucket.reads.clear()
    map_scene(asked, Watch(advanced=advanced))
    assert sorted(begun) == sorted(there) and len(there) >= 2
    assert sorted(entries()) == sorted([*there, *set(entries())]) and len(set(entries())) == BLOCKS


def test_a_shard_that_another_run_wrote_over_is_noticed_and_made_again(
    bucket: Bucket, asked: MapRequest, plain: dict[str, bytes]
) -> None:
    with pytest.raises(StoppedError):
        map_scene(asked, stopped_after(1))
    key = next(key for key in sorted(bucket.objects) if "/classes/c/" in key)
    bucket.objects[key] = bucket.objects[key][:-9] + b"of another"
    with pytest.raises(MachineError, match=r"1 of 4 blocks .* run the same command again"):
        map_scene(asked)
    assert content(map_scene(asked)) == plain


def test_a_run_leaves_what_another_one_holds_and_takes_over_from_the_dead(
    bucket: Bucket,
    asked: MapRequest,
    plain: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    refused: list[str] = []

    def another(_plan: object, _done: int) -> None:
        monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "other"))  # of another machine
        with monkeypatch.context() as patch:
            patch.setattr(lease, "PATIENCE", 60.0)  # who is slow to write is not dead
            with pytest.raises(HeldError, match=rf"{WORK}/city-\w+, process \d+ on .*; wait for it") as error:
                map_scene(replace(asked, out=PLACE))
        refused.append(str(error.value))

    assert content(map_scene(replace(asked, out=PLACE), Watch(started=another))) == plain
    assert len(refused) == 1 and not kept(bucket)
    folder = refused[0].split(f"{WORK}/")[1].split(",")[0]
    bucket.objects[f"work/{folder}/lock"] = b'{"process": 7, "host": "gone", "run": "killed"}'
    again = replace(asked, out=PLACE, product=ProductOptions(overwrite=True))
    assert content(map_scene(again)) == plain and not kept(bucket)


def test_a_run_that_was_taken_over_writes_no_more(bucket: Bucket, asked: MapRequest) -> None:
    keys: list[str] = []

    def take(_block: object) -> None:
        (key,) = (key for key in bucket.objects if key.endswith("/lock"))
        bucket.objects[key] = b'{"process": 7, "host": "elsewhere", "run": "another"}'
        keys[:] = sorted(bucket.objects)

    watch = Watch(advanced=take)
    with pytest.raises((HeldError, MachineError), match=r"taken over.*"):
        map_scene(asked, watch)
    assert not watch.stop.is_set(), "scenes that come after it are mapped"
    assert sorted(bucket.objects) == keys, "not even to tidy up"


def test_other_requests_and_other_content_are_refused_and_restart_begins_anew(
    bucket: Bucket, asked: MapRequest, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        map_scene(asked, stopped_after(1))
    other = replace(asked, layers=("entropy",))
    with pytest.raises(ProductError, match=r"s3://maps/work/out-\w+ holds an unfinished run that differs"):
        map_scene(other)
    (ledger,) = {key.split("/")[0] for key in kept(bucket) if key.startswith("ledger-")}
    with pytest.raises(StoppedError):
        map_scene(replace(other, product=ProductOptions(restart=True)), stopped_after(1))
    (anew,) = {key.split("/")[0] for key in kept(bucket) if key.startswith("ledger-")}
    assert anew != ledger, "who was taken for dead may still write into the old one"
    folder = next(iter(bucket.objects)).rpartition("/store.zarr")[0].split("/", 2)[1]
    bucket.objects[f"work/{folder}/letter.txt"] = b"mine"
    with pytest.raises(ProductError, match=r"holds what no run writes: letter\.txt.*--work"):
        map_scene(other)
    assert bucket.objects[f"work/{folder}/letter.txt"] == b"mine"


@pytest.mark.parametrize("prefix", ["p1/x", "p1/x/deeper/work"])
def test_blocks_are_not_kept_among_the_files_of_a_product(
    bucket: Bucket, asked: MapRequest, prefix: str
) -> None:
    bucket.objects["p1/x/item.json"] = (
        b'{"properties": {"processing:software": {"citycover": "0"}}, "assets": {}}'
    )
    work = f"s3://{BUCKET}/{prefix}"
    with pytest.raises(
        ConfigError, match=f"--work {work} lies in the finished product s3://{BUCKET}/p1/x, .*beside"
    ):
        map_scene(replace(asked, engine=replace(asked.engine, work=work)))
    assert bucket.objects.keys() == {"p1/x/item.json"}


def test_a_run_whose_blocks_lie_here_is_not_dropped_for_one_in_a_bucket(
    bucket: Bucket, asked: MapRequest, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        map_scene(replace(asked, engine=replace(asked.engine, work=None)), stopped_after(1))
    with pytest.raises(ProductError, match="leave --work away"):
        map_scene(asked)
    assert list((tmp_path / "out/.work/ledger").iterdir()) and not bucket.objects
    map_scene(replace(asked, product=ProductOptions(restart=True)))


def test_what_is_left_of_a_finished_run_goes_when_it_is_asked_for_again(
    bucket: Bucket, asked: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("citycover.store.far.FarWork.drop", lambda _self: None)
        map_scene(asked)
    assert kept(bucket)
    with pytest.raises(FinishedError):
        map_scene(asked)
    assert not bucket.objects


def test_a_product_is_finished_though_its_blocks_cannot_be_removed(
    bucket: Bucket,
    asked: MapRequest,
    plain: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    drop = FarWork.drop

    def denied(far: FarWork) -> None:
        bucket.denied = True
        drop(far)

    with monkeypatch.context() as patch:
        patch.setattr(FarWork, "drop", denied)
        assert content(map_scene(asked)) == plain
    assert "blocks of the finished product are left" in caplog.text and kept(bucket)
    bucket.denied = False
    with pytest.raises(FinishedError):
        map_scene(asked)
    assert not bucket.objects


def test_a_mistake_leaves_no_trace(bucket: Bucket, asked: MapRequest, tmp_path: Path) -> None:
    with pytest.raises(SceneError):
        map_scene(replace(asked, imagery=Imagery((str(tmp_path / "nothing.tif"),))))
    assert not bucket.objects and not (tmp_path / "out").exists()


def test_a_run_that_ends_before_its_first_block_binds_nobody(
    bucket: Bucket, asked: MapRequest, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other, end = replace(asked, engine=replace(asked.engine, window=128)), Watch(started=lambda *_: 1 / 0)
    for killed in (False, True):
        with monkeypatch.context() as patch:
            if killed:
                patch.setattr(FarWork, "_leave_no_trace", lambda _work: None)
            with pytest.raises(ZeroDivisionError):
                map_scene(other, end)
        assert ("identity.json" in kept(bucket)) is killed
    assert content(map_scene(asked)) == plain and not kept(bucket)


@pytest.mark.parametrize(
    "answer", [(403, "InvalidAccessKeyId"), (400, "ExpiredToken"), (301, "PermanentRedirect")]
)
def test_who_is_not_let_in_is_told_what_to_set_and_nothing_is_made(
    bucket: Bucket, asked: MapRequest, tmp_path: Path, answer: tuple[int, str]
) -> None:
    bucket.refusing = answer
    with pytest.raises(MachineError, match=r"access is denied .*set AWS_ACCESS_KEY_ID.*AWS_REGION") as error:
        map_scene(asked)
    assert not is_passing(error.value) and not bucket.objects and not (tmp_path / "out").exists()


def test_an_endpoint_that_cannot_be_asked_is_told(
    bucket: Bucket, asked: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL is at http://.* set AWS_ALLOW_HTTP=true"):
        map_scene(asked)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "store.example.org")
    with pytest.raises(ConfigError, match=r"AWS_ENDPOINT_URL is 'store\.example\.org'.* give https://HOST"):
        map_scene(asked)
    assert not bucket.asked


def test_a_name_is_not_taken_for_what_a_store_says(
    bucket: Bucket, asked: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    bucket.busy = 10**6
    work = f"s3://{BUCKET}/credentials"
    with pytest.raises(MachineError, match="the object store does not do it") as error:
        map_scene(replace(asked, engine=replace(asked.engine, work=work)))
    assert is_passing(error.value)


def test_a_store_that_is_away_is_waited_for_once(
    bucket: Bucket, asked: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    bucket.busy = 10**6
    with pytest.raises(MachineError, match="the object store does not do it"):
        map_scene(asked)
    assert bucket.asked == 1


@pytest.mark.parametrize("place", ["work", "gs://bucket/work", "s3://bucket"])
def test_what_is_no_prefix_of_a_bucket_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        EngineOptions(work=place)


def test_a_bucket_that_fails_ends_the_run_and_the_same_command_goes_on(
    bucket: Bucket, asked: MapRequest, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_block: object) -> None:
        bucket.busy = 10**6

    with monkeypatch.context() as patch:
        patch.setattr(remote, "RETRIES", {"max_retries": 1})
        patch.setattr(lease, "PATIENCE", 60.0)  # the block finds it out, however slow it is
        patch.setattr(patience, "PAUSE", 0.1)
        with pytest.raises(MachineError, match=r"run the same command again: it goes on") as error:
            map_scene(asked, Watch(advanced=fail))
        assert is_passing(error.value), "a worker of a cluster tries it again"
        bucket.busy, bucket.denied = 0, True
        with pytest.raises(MachineError, match="access is denied") as error:
            map_scene(asked)
        assert not is_passing(error.value)
    bucket.denied = False
    assert content(map_scene(asked)) == plain and not bucket.objects


@pytest.mark.parametrize("away", ["between blocks", "in the middle of one"])
def test_a_bucket_that_is_away_for_a_moment_is_waited_for(
    away: str,
    bucket: Bucket,
    scene: Path,
    asked: MapRequest,
    plain: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Longer than a request is asked again: nothing is computed anew for it."""
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(patience, "PAUSE", 0.1)
    monkeypatch.setattr(lease, "BEAT", 60.0)  # the blocks find it out
    done = list[object]()

    def leave(what: object) -> None:
        if len(done) == 1 and (away == "between blocks") == (not isinstance(what, str)):
            bucket.on_put, bucket.busy = lambda _key: None, patience.TRIES - 1

    def advanced(block: object) -> None:
        done.append(block)
        leave(block)

    bucket.on_put = leave
    product = map_scene(asked, Watch(advanced=advanced))
    assert "is tried again in 0 s: s3://" in caplog.text
    assert content(product) == plain and len(done) == BLOCKS and not bucket.objects
    assert product.run.amount.windows == Product.read(scene.parent / "plain").run.amount.windows


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOSPC])
def test_a_drive_that_was_lost_for_a_moment_is_waited_for_and_a_full_one_is_not(
    number: int, asked: MapRequest, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE", 0.1)
    write, failures = WorkingStore.write_block, [number]

    def failing(*given: Any, **more: Any) -> None:
        if failures:
            raise OSError(failures.pop(), "no")
        write(*given, **more)

    monkeypatch.setattr(WorkingStore, "write_block", failing)
    here = replace(asked, engine=replace(asked.engine, work=None))
    with nullcontext() if number == errno.ESTALE else pytest.raises(MachineError, match="no space left"):
        assert content(map_scene(here)) == plain


def test_a_run_that_waits_for_a_bucket_is_stopped_at_once(
    bucket: Bucket, asked: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    monkeypatch.setattr(patience, "PAUSE", 3600.0)
    monkeypatch.setattr(lease, "BEAT", 60.0)
    monkeypatch.setattr(lease, "FAREWELL", 0.2)
    watch = Watch()

    def leave(_block: object) -> None:
        bucket.busy = 10**6
        threading.Timer(0.5, watch.stop.set).start()

    with pytest.raises(StoppedError):
        map_scene(asked, replace(watch, advanced=leave))


def test_a_run_that_is_stopped_while_the_bucket_is_away_ends_and_goes_on_later(
    bucket: Bucket,
    asked: MapRequest,
    plain: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Requests are tried again until it is back; who ends does not wait for that."""

    def stop(_block: object) -> None:
        bucket.busy = 10**6
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(lease, "FAREWELL", 0.2)
        with pytest.raises(StoppedError):
            map_scene(asked, Watch(advanced=stop))
    assert "has not answered" in caplog.text and any(key.endswith("/lock") for key in bucket.objects)
    bucket.busy = 0
    for thread in threading.enumerate():
        if thread.name == "citycover-farewell":
            thread.join()
    assert content(map_scene(asked)) == plain and not bucket.objects


def test_busy_answers_and_lost_ones_change_nothing(
    bucket: Bucket, asked: MapRequest, plain: dict[str, bytes]
) -> None:
    bucket.one_in, bucket.lost_in = 11, 4
    assert content(map_scene(asked)) == plain
    bucket.one_in = bucket.lost_in = 0
    assert not bucket.objects


@pytest.mark.skipif("CITYCOVER_S3" not in os.environ, reason="CITYCOVER_S3 names no server to try it with")
def test_another_server_takes_it_too(
    asked: MapRequest, plain: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, name = os.environ["CITYCOVER_S3"], f"far-{uuid4().hex}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT")):
        pass
    engine = replace(asked.engine, work=f"s3://{name}/work")
    asked = replace(asked, out=f"s3://{name}/maps/city", engine=engine)
    with busy_before(url, one_in=10) as busy:
        point_at(busy, monkeypatch)
        monkeypatch.setattr(lease, "BEAT", 0.1)
        with pytest.raises(StoppedError):
            map_scene(asked, stopped_after(2))
        monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "other"))
        assert content(map_scene(asked)) == plain
        assert not RemotePath(name, "work").below()
