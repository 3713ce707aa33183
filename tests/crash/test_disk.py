"""The recording itself: what it sees, and which states it says are possible."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import rasterio
from disk import State, Tree, left_by
from unread import unread


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


def test_blocks_count_only_beside_the_sign_of_their_run() -> None:
    def digest(**files: bytes) -> str:
        tree: Tree = {"p/.work": None, "p/.work/store.zarr": None, "p/.work/publish": None}
        return State(0, tree | {f"p/.work/{name}": content for name, content in files.items()}, "").digest

    block, sign = {"store.zarr/0": b"1"}, {"identity.json": b"{}"}
    assert digest() == digest(**block) == digest(**{"publish/a.tif": b"1"})
    assert len({digest(), digest(**sign), digest(**sign, **block), digest(**sign, **{"ledger/0": b"1"})}) == 4
    assert digest(**{".a.tmp": b"1"}) == digest(**{".a.tmp": b""}) != digest()


def test_a_checkpoint_counts_until_its_training_ended() -> None:
    begun, ended = {"t/checkpoint.pt": b"1"}, {"t/result.json": b"{}"}
    digests = [State(0, {"t": None, **files}, "").digest for files in (begun | ended, ended, begun, {})]
    assert digests[0] == digests[1] and len(set(digests)) == 3


@pytest.mark.parametrize("reader", [Path.read_bytes, rasterio.open])
def test_a_file_that_is_opened_is_known(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    file = tmp_path / "a.asc"
    file.write_text("ncols 1\nnrows 1\nxllcorner 0\nyllcorner 0\ncellsize 1\n7\n")
    with pytest.raises(AssertionError, match=r"a\.asc"), unread([file]):
        reader(file)


def test_a_file_that_is_moved_and_removed_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1")
    with unread([file]):
        file.rename(tmp_path / "b")
        (tmp_path / "b").unlink()


def test_a_lock_may_be_opened_but_not_read(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_bytes(b"1")
    with unread([], [file]), file.open("rb+") as lock:
        lock.truncate(0)
        lock.write(b"2")
    with pytest.raises(AssertionError, match="lock"), unread([], [file]):
        file.read_bytes()
