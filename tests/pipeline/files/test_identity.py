"""A file is the same by content, not by the time that is written beside it."""

from __future__ import annotations

import os
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
