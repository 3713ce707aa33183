"""A file is there wholly or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from citycover.files.atomic import atomic_path, put_in_place, write_atomic
from citycover.files.identity import FileStamp, sha256_of


def test_an_atomic_write_leaves_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(ZeroDivisionError):
        write_atomic(path, lambda _file: 1 / 0)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_name_keeps_the_ending_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with atomic_path(path) as part:
        part.write_text("whole")
        assert part.suffix == ".pt2" and part.parent == tmp_path and part.name.startswith(".")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt2"]


def test_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened = []
    fsync, replace = os.fsync, Path.replace

    def note_sync(fd: int) -> None:
        happened.append(("sync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        fsync(fd)

    def note_replace(self: Path, to: Path) -> Path:
        happened.append(("rename", str(to)))
        return replace(self, to)

    monkeypatch.setattr("os.fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("x")
    put_in_place(source, target)
    assert happened == [("sync", str(source)), ("rename", str(target)), ("sync", str(tmp_path))]


def test_a_file_system_that_cannot_synchronise_folders_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").resolve().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(fd)

    monkeypatch.setattr("os.fsync", refuse)
    write_atomic(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"


def test_a_stamp_changes_with_the_content_even_where_size_and_time_are_put_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    before, digest = FileStamp.of(path), sha256_of(path)
    assert before is not None
    path.write_text("two")
    os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
    after = FileStamp.of(path)
    assert after is not None
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after != before and sha256_of(path) != digest
    assert FileStamp.of(tmp_path) is None and FileStamp.of(tmp_path / "none") is None
