"""A run whose blocks lie in a bucket, killed before any of its changes: another machine goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bucket import BUCKET, Bucket, point_at, serving_bucket
from conftest import write_scene

from citycover.errors import FinishedError
from citycover.files import lease, store
from citycover.files.remote import RemotePath
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.product.names import SIGN
from citycover.run.map import map_scene

CHANGES = ("write", "swap", "remove", "copy_to")

RASTERS = ("landcover.tif", "confidence.tif")

PLACE = "2026/city/"


class KilledError(BaseException):
    """A process that was killed does nothing more."""


@contextmanager
def killed_before(number: int) -> Iterator[list[str]]:
    """Let changes to a bucket succeed until one of them, which and all later ones do not happen."""
    done: list[str] = []

    def fatal(of: object, name: str) -> Any:
        real = getattr(of, name)

        def change(place: RemotePath, *given: Any) -> Any:
            if len(done) >= number:
                raise KilledError
            done.append(f"{name} {place.key}")
            return real(place, *given)

        return change

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "BEAT", 3600.0)  # the dead write nothing
        for name in CHANGES:
            patch.setattr(RemotePath, name, fatal(RemotePath, name))
        patch.setattr(store, "remove_all", fatal(store, "remove_all"))
        yield done


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bucket, MapRequest]]:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    monkeypatch.setattr(lease, "PATIENCE", 0.0)
    scene = write_scene(tmp_path / "scene.tif", (700, 400))
    work = f"s3://{BUCKET}/work"
    engine = EngineOptions(window=256, batch=1, precision="fp32", threads=1, block=(512, 512), work=work)
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        yield bucket, MapRequest((Imagery((str(scene),))), f"s3://{BUCKET}/2026/city", engine=engine)


def explore(bucket: Bucket, asked: MapRequest, tmp_path: Path, share: float) -> int:
    """Kill before a share of all changes, evenly; how many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CITYCOVER_CACHE", str(tmp_path / "first"))
        map_scene(replace(asked, engine=replace(asked.engine, work=None)))
        wanted = {name: bucket.objects[PLACE + name] for name in RASTERS}
        bucket.objects.clear()
        with killed_before(10**6) as all_of_them:
            map_scene(asked)
        count = 0
        for number in range(len(all_of_them)):
            if int((number + 1) * share) == int(number * share):
                continue
            count += 1
            bucket.objects.clear()
            patch.setenv("CITYCOVER_CACHE", str(tmp_path / f"a{number}"))
            with pytest.raises(KilledError), killed_before(number):
                map_scene(asked)
            if PLACE + SIGN in bucket.objects:
                assert {name: bucket.objects[PLACE + name] for name in RASTERS} == wanted
            patch.setenv("CITYCOVER_CACHE", str(tmp_path / f"b{number}"))
            with suppress(FinishedError):
                map_scene(asked)
            assert {name: bucket.objects[PLACE + name] for name in RASTERS} == wanted
            left = [key for key in bucket.objects if key.startswith("work/")]
            assert not left, f"killed before {all_of_them[number]}: {left} stay"
    return count


def test_a_killed_run_is_gone_on_with_from_elsewhere(
    asked: tuple[Bucket, MapRequest], tmp_path: Path
) -> None:
    assert explore(*asked, tmp_path, 0.15) >= 4


@pytest.mark.slow
def test_a_run_killed_before_any_change_is_gone_on_with_from_elsewhere(
    asked: tuple[Bucket, MapRequest], tmp_path: Path
) -> None:
    assert explore(*asked, tmp_path, 1.0) >= 25
