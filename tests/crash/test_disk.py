"""The recording itself: what it sees, and which states it says are possible."""

import os
from collections.abc import Callable
from pathlib import Path

from disk import Tree, left_by


def trees(root: Path, work: Callable[[Path], object]) -> list[Tree]:
    return left_by(root, lambda: work(root))


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def test_a_rename_without_synchronising_may_leave_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def careless(root: Path) -> None:
        (root / "t").write_bytes(b"new!")
        (root / "t").replace(root / "a")

    found = trees(tmp_path, careless)
    assert (
        {"a": b""} in found and {"a": b"ne"} in found and {"a": b"new!"} in found and {"a": b"old"} in found
    )


def test_a_file_that_was_synchronised_before_its_rename_is_old_or_new(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def careful(root: Path) -> None:
        (root / "t").write_bytes(b"new!")
        sync(root / "t")
        (root / "t").replace(root / "a")
        sync(root)

    found = trees(tmp_path, careful)
    assert {tree["a"] for tree in found} == {b"old", b"new!"}
    assert found[-1] == {"a": b"new!"}


def test_entries_of_a_folder_are_lost_in_any_combination(tmp_path: Path) -> None:
    def make(root: Path) -> None:
        (root / "x").mkdir()
        sync(root)
        for name in "ab":
            (root / "x" / name).write_bytes(b"1")
            sync(root / "x" / name)

    found = [set(tree) for tree in trees(tmp_path, make)]
    assert all(want in found for want in ({"x"}, {"x", "x/a"}, {"x", "x/b"}, {"x", "x/a", "x/b"}))


def test_removing_a_tree_is_seen_file_by_file(tmp_path: Path) -> None:
    import shutil

    (tmp_path / "d" / "e").mkdir(parents=True)
    for name in ("one", "two", "e/three"):
        (tmp_path / "d" / name).write_bytes(b"1")

    found = trees(tmp_path, lambda root: shutil.rmtree(root / "d"))
    assert {} in found and any("d/one" in t and "d/two" not in t for t in found)
    assert any("d/two" in t and "d/one" not in t for t in found)
