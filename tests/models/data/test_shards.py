"""Patches decoded once: what the store holds is what the files hold, now, whoever else decodes or reads."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from disk import left_by
from patches_making import v2_rows, write_bands, write_v2

from citycover.errors import ConfigError, StoppedError
from citycover.files.lock import RunLock
from citycover_models.data import shards as module
from citycover_models.data.bigearthnet import read_bigearthnet
from citycover_models.data.patch_marks import mark_patches
from citycover_models.data.patches import Patch
from citycover_models.data.shards import PatchReader, Shards, write_shards


def patches_of(folder: Path, count: int, regions: Sequence[str] = ("Austria",)) -> tuple[Patch, ...]:
    write_v2(folder, v2_rows(count, regions))
    return read_bigearthnet(folder).patches


def decode(patches: Sequence[Patch], store: Path, *, references: bool = False) -> Shards:
    return write_shards(patches, store, mark_patches(patches, references=references))


def differ(patches: Sequence[Patch], shards: Shards) -> list[int]:
    """Numbers of patches that the shards hold otherwise than the files."""
    files, kept = PatchReader(patches), PatchReader(patches, shards)
    return [
        number
        for number in range(len(patches))
        if not all(map(np.array_equal, files.read(number), kept.read(number)))
    ]


def parts_of(store: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(store)) for path in store.glob("*/*/names.json"))


def write_anew(path: str, number: int) -> None:
    """Other pixels in place: the folder tells nothing of it."""
    with rasterio.open(path, "r+") as file:
        file.write(np.full_like(file.read(), number))


def test_shards_hold_what_the_files_hold(tmp_path: Path) -> None:
    rows = v2_rows(6, ("Austria", "Finland"))
    rng = np.random.default_rng(0)
    codes = {r["patch_id"]: rng.choice([112, 231, 999], (120, 120)).astype(np.uint16) for r in rows}
    write_v2(tmp_path / "ben", rows, codes)
    patches = read_bigearthnet(tmp_path / "ben").patches
    shards = decode(patches, tmp_path / "store", references=True)
    found = parts_of(tmp_path / "store")
    assert found == ["Austria/bands-1", "Austria/codes-1", "Finland/bands-1", "Finland/codes-1"]
    assert not differ(patches, shards)
    files, kept = PatchReader(patches), PatchReader(patches[::-1], shards)
    for number in range(len(patches)):
        assert all(group.dtype == np.uint16 for group in kept.read(number))
        assert np.array_equal(files.read_codes(number), kept.read_codes(len(patches) - 1 - number))


def test_patches_whose_files_changed_are_decoded_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patches = patches_of(tmp_path / "ben", 3)
    before = decode(patches, tmp_path / "store")
    old = PatchReader(patches, before).read(1)
    write_anew(patches[1].files[0], 7)
    after = decode(patches, tmp_path / "store")
    assert "files of 1 patch(es) of Austria are not those" in caplog.text
    assert not differ(patches, after) and parts_of(tmp_path / "store") == [
        "Austria/bands-1",
        "Austria/bands-2",
    ]
    assert differ(patches, before) == [1], "who reads goes on with what it began with"
    assert np.array_equal(PatchReader(patches, before).read(1)[0], old[0])
    caplog.clear()
    assert decode(patches, tmp_path / "store") == after and "not those" not in caplog.text


def test_another_share_of_the_patches_is_added(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patches = patches_of(tmp_path / "ben", 4)
    first = decode(patches[:2], tmp_path / "store")
    second = decode(patches[1:], tmp_path / "store")
    assert not differ(patches[:2], first) and not differ(patches[1:], second)
    held = [
        [name for name, _ in json.loads(path.read_text())] for path in sorted(tmp_path.rglob("names.json"))
    ]
    assert held == [[p.name for p in patches[:2]], [p.name for p in patches[2:]]]
    assert "not those" not in caplog.text, "nothing changed"


def test_a_copy_with_its_dates_is_not_decoded_again(tmp_path: Path) -> None:
    """A mark is of sizes and dates, not of places; a tensor file has one, too."""
    (patch,) = patches_of(tmp_path / "ben", 1)
    before = mark_patches([patch], references=False)
    (tmp_path / "ben").rename(tmp_path / "moved")
    (moved,) = read_bigearthnet(tmp_path / "moved").patches
    assert mark_patches([moved], references=False) == before
    os.utime(moved.files[3], ns=(1, 1))
    touched = mark_patches([moved], references=False)
    Path(moved.files[0]).unlink()
    loose = Patch("x", str(tmp_path / "x.safetensors"), (), "train", "")
    missing = mark_patches([loose], references=False)
    Path(loose.source).write_bytes(b"1")
    others = [
        touched,
        mark_patches([moved], references=False),
        missing,
        mark_patches([loose], references=False),
    ]
    assert len({value for marks in (before, *others) for value in marks.bands.values()}) == 5
    assert not before.codes


def test_reference_maps_that_came_later_are_added(tmp_path: Path) -> None:
    patches = patches_of(tmp_path / "ben", 2)
    decode(patches, tmp_path / "store")
    scene = patches[0].name.rsplit("_", 2)[0]
    for patch in patches:
        code = {"reference_map": np.full((120, 120), 312, np.uint16)}
        write_bands(tmp_path / "ben" / "Reference_Maps" / scene / patch.name, code)
    patches = read_bigearthnet(tmp_path / "ben").patches
    shards = decode(patches, tmp_path / "store", references=True)
    assert (PatchReader(patches, shards).read_codes(1) == 312).all() and not differ(patches, shards)
    assert parts_of(tmp_path / "store") == ["Austria/bands-1", "Austria/codes-1"], "bands were there"


def test_parts_that_were_not_finished_or_lost_a_shard_are_made_again(tmp_path: Path) -> None:
    patches = patches_of(tmp_path / "ben", 2)
    for path in patches[0].files[-2:]:
        write_anew(path, 0)
    decode(patches[:1], tmp_path / "store")  # b60 is zero throughout, and there
    part = tmp_path / "store" / "Austria" / "bands-1"
    before = (part / "names.json").stat().st_mtime_ns
    decode(patches[:1], tmp_path / "store")
    assert (part / "names.json").stat().st_mtime_ns == before, "what is there is kept"
    for spoil in (
        lambda part: (part / "names.json").unlink(),
        lambda part: (part / "names.json").write_text('["a"]'),
        lambda part: (part / "b20" / "c" / "0").rename(tmp_path / f"lost-{part.name}"),
    ):
        (part,) = (tmp_path / "store" / "Austria").iterdir()
        spoil(part)
        assert not differ(patches[:1], decode(patches[:1], tmp_path / "store"))


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    patches = patches_of(tmp_path / "ben", 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    (tmp_path / "early" / "Austria").mkdir(parents=True)
    (tmp_path / "early" / "Austria" / "zarr.json").touch()
    for store, message in (
        ("other", "other content"),
        ("other/thesis.txt", "other content"),
        ("early", "earlier"),
    ):
        with pytest.raises(ConfigError, match=message):
            decode(patches, tmp_path / store)
    assert {p.name for p in (tmp_path / "other").iterdir()} == {"thesis.txt"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()  # of who has just begun
    assert not differ(patches, decode(patches, tmp_path / "empty"))


def test_shards_that_say_they_are_finished_are_so_after_a_power_cut(tmp_path: Path) -> None:
    patches = patches_of(tmp_path / "ben", 1)
    (tmp_path / "store").mkdir()
    trees = left_by(tmp_path / "store", lambda: decode(patches, tmp_path / "store" / "shards"))
    part = "shards/Austria/bands-1"
    sign, whole = f"{part}/names.json", trees[-1]
    assert whole[sign] and any(part in tree and sign not in tree for tree in trees)
    assert all(tree == whole for tree in trees if tree.get(sign) == whole[sign])


def _decode_and_compare(
    patches: Sequence[Patch], store: Path, answers: multiprocessing.Queue[list[int]]
) -> None:
    answers.put(differ(patches, decode(patches, store)))


def test_two_trainings_may_begin_with_one_store(tmp_path: Path) -> None:
    patches = patches_of(tmp_path / "ben", 8)
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[list[int]] = context.Queue()
    both = [
        context.Process(target=_decode_and_compare, args=(patches, tmp_path / "store", answers)) for _ in "12"
    ]
    for process in both:
        process.start()
    assert [answers.get(timeout=60) for _ in both] == [[], []]
    for process in both:
        process.join()
    assert parts_of(tmp_path / "store") == ["Austria/bands-1"], "the second found what the first had decoded"


def test_a_store_that_holds_all_is_only_read(tmp_path: Path) -> None:
    """By many at once, and from a drive that nobody may write to."""
    patches = patches_of(tmp_path / "ben", 2)
    first = decode(patches, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    with RunLock(tmp_path / "store" / ".lock"):
        before |= {(lock := tmp_path / "store" / ".lock"): lock.stat().st_mtime_ns}
        assert decode(patches[:1], tmp_path / "store").bands.items() <= first.bands.items()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_who_waits_for_a_store_says_so_and_can_be_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.01)
    patches = patches_of(tmp_path / "ben", 1)
    marks, store = mark_patches(patches, references=False), tmp_path / "store"
    store.mkdir()
    stop = threading.Event()
    with RunLock(store / ".lock"), caplog.at_level(logging.WARNING):
        waiting = threading.Timer(0.2, stop.set)
        waiting.start()
        with pytest.raises(StoppedError):
            write_shards(patches, store, marks, stop)
    assert f"waiting for process {os.getpid()} on " in caplog.text
    with pytest.raises(StoppedError):  # and while it decodes
        write_shards(patches, store, marks, stop)
    assert not parts_of(store)
    with RunLock(store / ".lock") as lock:
        threading.Timer(0.2, lock.release).start()
        assert not differ(patches, write_shards(patches, store, marks))


def test_a_kill_costs_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART", 2)
    patches = patches_of(tmp_path / "ben", 5)
    Path(patches[4].files[0]).rename(tmp_path / "away")
    with pytest.raises(ConfigError, match="lacks B02"):
        decode(patches, tmp_path / "store")
    assert parts_of(tmp_path / "store") == ["Austria/bands-1", "Austria/bands-2"]
    (tmp_path / "away").rename(patches[4].files[0])
    shards = decode(patches, tmp_path / "store")
    assert not differ(patches, shards) and len({part for part, _ in shards.bands.values()}) == 3


@pytest.mark.parametrize("region", ["..", "a/b", ".hidden", ""])
def test_regions_of_odd_names_stay_in_the_store(tmp_path: Path, region: str) -> None:
    (patch,) = patches_of(tmp_path / "ben", 1)
    odd = (Patch(patch.name, patch.source, (), "train", region),)
    assert not differ(odd, decode(odd, tmp_path / "store"))
    assert {p.name for p in tmp_path.iterdir()} == {"ben", "store"}
    assert len(parts_of(tmp_path / "store")) == 1
