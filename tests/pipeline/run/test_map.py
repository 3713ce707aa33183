"""A run as a whole: what happens to it from outside."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import write_scene

from citycover.errors import MachineError, SceneError
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
from citycover.job.watch import Watch
from citycover.model import loading
from citycover.model.builtin import builtin_path
from citycover.model.predictor import ModelPredictor
from citycover.plan import fit
from citycover.plan.plan import Block
from citycover.product.record import RunRecord
from citycover.run.map import map_scene
from citycover.store.work import WorkFolder


@pytest.fixture
def request_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MapRequest:
    """A map in six blocks."""
    monkeypatch.setattr(fit, "MAX_BLOCK_HEIGHT", fit.CHUNK)
    monkeypatch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)
    scene = write_scene(tmp_path / "scene.tif", (600, 1100))
    engine = EngineOptions(window=256, batch=1, precision="fp32", threads=1)
    return MapRequest(Imagery((str(scene),)), tmp_path / "out", "spectral-rgbn", engine=engine)


class InterruptedRunError(Exception):
    """Whatever ends a run from outside."""


def interrupt(request: MapRequest, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Begin a run, and end it after its first block."""

    def end(_block: Block) -> None:
        meanwhile()
        raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        map_scene(request, Watch(advanced=end))


def test_a_run_whose_folder_is_removed_stops_and_publishes_nothing(request_of_blocks: MapRequest) -> None:
    out = request_of_blocks.out
    watch = Watch(advanced=lambda _block: shutil.rmtree(out, ignore_errors=True))
    with pytest.raises(MachineError, match="removed or taken over"):
        map_scene(request_of_blocks, watch)
    assert not (out / "item.json").exists()
    product = map_scene(request_of_blocks)
    with rasterio.open(product.folder / "landcover.tif") as dataset:
        assert np.unique(dataset.read(1)).size > 1


def test_a_run_whose_folder_is_removed_before_it_publishes_publishes_nothing(
    request_of_blocks: MapRequest,
) -> None:
    out = request_of_blocks.out
    with pytest.raises(MachineError, match=r"removed or taken over|not there"):
        map_scene(request_of_blocks, Watch(publishing=lambda: shutil.rmtree(out)))
    assert not out.exists()


def test_a_run_that_memory_does_not_bear_says_what_to_give(
    request_of_blocks: MapRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as a file that cannot be written: strips of a row are the first that are large."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", refused)
    with pytest.raises(MachineError, match="out of memory; give --memory, a smaller --batch or --window"):
        map_scene(replace(request_of_blocks, engine=EngineOptions(window=512, precision="fp32", threads=1)))


def test_the_record_tells_of_attempts_and_warnings(request_of_blocks: MapRequest) -> None:
    interrupt(request_of_blocks)
    watch = Watch(publishing=lambda: logging.getLogger("citycover.test").warning("a warning of %s", "mine"))
    begin = datetime.now(UTC).replace(microsecond=0)
    run = map_scene(request_of_blocks, watch).run
    assert (run.attempts, run.resumed) == (2, True)
    assert "a warning of mine" in run.warnings
    timing = run.timing
    assert timing.started and timing.finished and timing.started <= begin <= timing.finished
    assert run.machine.host == socket.gethostname() and run.given.command == tuple(sys.argv)
    assert RunRecord.from_json((request_of_blocks.out / "run.json").read_text()) == run


def test_what_cannot_run_here_leaves_nothing_that_stands_in_the_way(request_of_blocks: MapRequest) -> None:
    asked = replace(request_of_blocks.engine, precision="tf32", device="cpu")
    with pytest.raises(MachineError, match="tf32 is a precision of CUDA devices"):
        map_scene(replace(request_of_blocks, engine=asked))
    assert not request_of_blocks.out.exists()


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_ends_before_its_first_block_binds_nobody(
    request_of_blocks: MapRequest, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(_plan: object, _done: int) -> None:
        raise InterruptedRunError

    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(WorkFolder, "__exit__", lambda work, *_: work._lock.release())
        with pytest.raises(InterruptedRunError):
            map_scene(request_of_blocks, Watch(started=end))
    assert (request_of_blocks.out / ".work/identity.json").exists() is killed
    other = replace(request_of_blocks, engine=replace(request_of_blocks.engine, window=128))
    run = map_scene(other).run
    assert max(run.facts()["plan"]["window"]) <= 128
    assert (run.attempts, run.resumed) == (1, False)


def test_one_thread_makes_the_map_that_two_make(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", (300, 300))
    rasters = []
    for threads in (1, 2):
        engine = EngineOptions(window=256, batch=1, precision="fp32", form="torchscript", threads=threads)
        imagery, out = Imagery((str(scene),)), tmp_path / str(threads)
        map_scene(MapRequest(imagery, out, "urban-rgbn-1m", engine=engine, layers=("probabilities",)))
        with rasterio.open(out / "probabilities.tif") as file:
            rasters.append(file.read())
    np.testing.assert_array_equal(*rasters)


def test_progress_begins_where_an_earlier_run_ended(request_of_blocks: MapRequest) -> None:
    """What is kept and what this run makes are the whole, each pixel counted once."""
    interrupt(request_of_blocks)
    kept: list[int] = []
    made: list[int] = []
    map_scene(
        request_of_blocks,
        Watch(
            started=lambda _plan, done: kept.append(done),
            advanced=lambda block: made.append(block.window.height * block.window.width),
        ),
    )
    assert len(kept) == 1 and kept[0] > 0
    assert kept[0] + sum(made) == 600 * 1100


def test_a_run_at_one_go_is_one_attempt(request_of_blocks: MapRequest) -> None:
    run = map_scene(request_of_blocks).run
    assert (run.attempts, run.resumed, run.warnings) == (1, False, ())


def test_networks_are_loaded_once_for_scenes_one_after_the_other_and_their_seams(
    request_of_blocks: MapRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = ModelPredictor.load, []

    def counted(*given: object, **named: object) -> ModelPredictor:
        loaded.append(given)
        return load(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "_last", {})
    monkeypatch.setattr(ModelPredictor, "load", counted)
    for name in ("one", "two"):
        asked = replace(request_of_blocks, out=tmp_path / name, product=ProductOptions(verify_seams=True))
        map_scene(asked, Watch(stop=threading.Event()))
    assert len(loaded) == 1


def overwrite(scene: Path, keep_time: bool) -> None:
    """Turn the image upside down, in place."""
    stat = scene.stat()
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(dataset.read()[:, ::-1])
    assert scene.stat().st_size == stat.st_size
    if keep_time:
        os.utime(scene, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("keep_time", [False, True])
@pytest.mark.parametrize("when", ["advanced", "publishing"])
def test_an_input_that_changes_underneath_ends_the_run_and_goes_on_when_it_is_back(
    request_of_blocks: MapRequest, tmp_path: Path, when: str, keep_time: bool
) -> None:
    scene = Path(request_of_blocks.imagery.files[0])
    kept = shutil.copy2(scene, tmp_path / "kept.tif")
    straight = map_scene(replace(request_of_blocks, out=tmp_path / "straight"))

    def change(*_: object) -> None:
        if not changed:
            changed.append(overwrite(scene, keep_time))

    changed: list[None] = []
    begun = tmp_path / "out" / ".work" / "ledger"
    if when == "advanced":
        with pytest.raises(SceneError, match=r"scene\.tif was changed .* --restart"):
            map_scene(request_of_blocks, Watch(advanced=change))
        assert 1 <= len(list(begun.glob("*.json"))) < 4, "no block after the change is entered"
    else:
        interrupt(request_of_blocks)
        change()
        with pytest.raises(SceneError, match=r"scene\.tif was changed"):
            map_scene(request_of_blocks)
    assert not (request_of_blocks.out / "item.json").exists()
    shutil.copyfile(kept, scene)  # the same content, at another time
    product = map_scene(request_of_blocks)
    assert product.run.resumed
    for name in ("landcover.tif", "confidence.tif"):
        with rasterio.open(product.folder / name) as ours, rasterio.open(straight.folder / name) as theirs:
            np.testing.assert_array_equal(ours.read(1), theirs.read(1))


def test_a_touched_input_is_no_other_one(request_of_blocks: MapRequest) -> None:
    scene = Path(request_of_blocks.imagery.files[0])
    interrupt(request_of_blocks, scene.touch)
    scene.touch()
    assert map_scene(request_of_blocks, Watch(advanced=lambda _: scene.touch())).run.resumed


def test_a_model_that_is_swapped_is_noticed(request_of_blocks: MapRequest, tmp_path: Path) -> None:
    model = tmp_path / "model.pt"
    shutil.copyfile(builtin_path("spectral-rgbn"), model)
    watch = Watch(advanced=lambda _: shutil.copyfile(builtin_path("spectral-s2"), model))
    with pytest.raises(SceneError, match=r"model\.pt was changed"):
        map_scene(replace(request_of_blocks, model=str(model)), watch)


def test_an_input_that_is_cut_short_is_no_map_full_of_holes(request_of_blocks: MapRequest) -> None:
    scene = Path(request_of_blocks.imagery.files[0])
    with pytest.raises(SceneError, match=r"scene\.tif was changed"):
        map_scene(request_of_blocks, Watch(advanced=lambda _: os.truncate(scene, 10_000)))


def test_blocks_that_were_damaged_on_the_disk_are_computed_anew(
    request_of_blocks: MapRequest, tmp_path: Path
) -> None:
    straight = map_scene(replace(request_of_blocks, out=tmp_path / "straight"))
    shards = request_of_blocks.out / ".work" / "store.zarr"
    done: list[Block] = []

    def damage_the_first(block: Block) -> None:
        done.append(block)
        if len(done) == 6:
            first, second = (shards / name / "c" / "0" / "0" for name in ("classes", "confidence"))
            first.unlink()
            second.write_bytes(second.read_bytes()[:-1])

    with pytest.raises(MachineError, match=r"1 of 6 blocks .* \(\(0, 0\) among them\)"):
        map_scene(request_of_blocks, Watch(advanced=damage_the_first))
    assert not (request_of_blocks.out / "item.json").exists()
    damaged = shards / "classes" / "c" / "1" / "1"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    product = map_scene(request_of_blocks)
    assert any("1 finished blocks were damaged" in warning for warning in product.run.warnings)
    for name in ("landcover.tif", "confidence.tif"):
        with rasterio.open(product.folder / name) as ours, rasterio.open(straight.folder / name) as theirs:
            np.testing.assert_array_equal(ours.read(1), theirs.read(1))
