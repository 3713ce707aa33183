"""Five verbs: what any store of a run's blocks must do."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citycover.files.store import PIECE, PosixStore, Store, pieces, put_text


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return PosixStore(tmp_path / "a")


def test_what_was_put_is_there_by_name_and_below_its_prefix(store: Store) -> None:
    assert store.list("") == ()
    put_text(store, "ledger/0_1.json", "{}")
    assert store.put("ledger/0_0.json", lambda file: file.write(b"one")) == 3
    put_text(store, "ledger-2/0_0.json", "of another")
    put_text(store, "identity.json", "")
    assert store.list("ledger/") == ("ledger/0_0.json", "ledger/0_1.json")
    assert set(store.list("")) == {*store.list("ledger/"), "ledger-2/0_0.json", "identity.json"}
    put_text(store, "ledger/0_0.json", "two")
    assert store.get("ledger/0_0.json") == b"two" and store.get("identity.json") == b""
    store.delete("ledger/0_0.json", "identity.json", "nothing/here")
    assert store.list("ledger/") == ("ledger/0_1.json",)
    for absent in ("identity.json", "ledger", "ledger/0_1.json/c"):
        with pytest.raises(FileNotFoundError):
            store.get(absent)


@given(content=st.binary(max_size=40), start=st.integers(-50, 50), length=st.none() | st.integers(0, 50))
def test_a_range_is_that_of_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: int, length: int | None
) -> None:
    store = PosixStore(tmp_path_factory.mktemp("store"))
    store.put("a", lambda file: file.write(content))
    begin = max(0, len(content) + start) if start < 0 else start
    assert store.get("a", start, length) == content[begin:][:length]


def test_pieces_are_the_whole(store: Store) -> None:
    for size in (0, 5, PIECE, PIECE + 5):
        content = os.urandom(size)
        store.put("a", lambda file, content=content: file.write(content))
        assert b"".join(pieces(store, "a")) == content


def test_of_many_that_put_something_new_one_succeeds(store: Store) -> None:
    begin, done = threading.Barrier(8), list[bool]()

    def put(number: int) -> None:
        begin.wait()
        done.append(store.put_new(f"by/{number % 2}", str(number).encode()))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 6 + [True] * 2
    assert not store.put_new("by/0", b"later") and store.get("by/0") != b"later"


def test_a_file_system_without_links_takes_what_is_new_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    store = PosixStore(tmp_path)
    assert store.put_new("a", b"one") and not store.put_new("a", b"two")
    assert store.get("a") == b"one" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_fails_to_be_written_leaves_nothing(store: Store) -> None:
    def fail(_file: object) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        store.put("a", fail)
    assert store.list("") == ()


def test_it_crosses_to_another_process(store: Store) -> None:
    put_text(store, "a", "b")
    assert pickle.loads(pickle.dumps(store)).get("a") == b"b"
