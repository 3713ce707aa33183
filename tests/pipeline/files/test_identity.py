"""A file is the same by content, not by the time that is written beside it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citycover.files.identity import FileMark

PIECE = 1 << 16


@given(st.binary(max_size=100), st.binary(max_size=100), st.booleans())
def test_a_file_within_the_budget_holds_exactly_as_long_as_its_content(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, keep_time: bool
) -> None:
    path = tmp_path_factory.mktemp("mark") / "file"
    path.write_bytes(before)
    mark = FileMark.of(str(path), 100)
    assert mark.holds() and mark.stamp is not None
    path.write_bytes(after)
    if keep_time:
        os.utime(path, ns=(mark.stamp.mtime_ns, mark.stamp.mtime_ns))
    assert mark.holds() is (before == after)


@pytest.mark.parametrize("place", [0, 10 * PIECE - 1, 5 * PIECE + 100])
def test_of_a_large_file_pieces_are_compared(tmp_path: Path, place: int) -> None:
    path = tmp_path / "file"
    content = bytearray(os.urandom(10 * PIECE))
    path.write_bytes(content)
    mark = FileMark.of(str(path), 3 * PIECE)
    path.touch()
    assert mark.holds()
    content[place] ^= 1
    path.write_bytes(content)
    assert not mark.holds()


def test_what_is_not_there_holds_as_long_as_it_does_not_come(tmp_path: Path) -> None:
    mark = FileMark.of(str(tmp_path / "file"), 100)
    assert mark.holds()
    (tmp_path / "file").write_text("here")
    assert not mark.holds()
    here = FileMark.of(str(tmp_path / "file"), 100)
    (tmp_path / "file").unlink()
    assert not here.holds()


@pytest.mark.parametrize("budget", [100, 1 << 20])
def test_a_zarr_store_is_one_file_of_all_that_lies_in_it(tmp_path: Path, budget: int) -> None:
    store = tmp_path / "a.zarr"
    (store / "red/c/0").mkdir(parents=True)
    for name in ("zarr.json", "red/zarr.json", "red/c/0/0", "red/c/0/1"):
        (store / name).write_bytes(name.encode() * 9)
    mark = FileMark.of(str(store), budget)
    assert mark.stamp is not None and mark.stamp.size == 9 * sum(
        map(len, ("zarr.json", "red/zarr.json", "red/c/0/0", "red/c/0/1"))
    )
    first, second = store / "red/c/0/0", store / "red/c/0/1"
    time.sleep(0.02)  # what file systems take for the same moment
    first.touch()
    assert FileMark.of(str(store), budget).stamp != mark.stamp and mark.holds()
    data = second.read_bytes()
    second.write_bytes(data[::-1])
    assert mark.holds() == (budget < 1000)  # of a large store some of the content is looked at
    second.unlink()
    assert not mark.holds()
    second.write_bytes(data)
    first.rename(store / "red/c/0/2")
    assert not mark.holds(), "the same bytes under another name"
