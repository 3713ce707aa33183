"""Five verbs: what any store of a run's blocks must do."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from pathlib import Path

import pytest
from bucket import BUCKET, point_at, serving_bucket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from citycover.errors import MachineError
from citycover.files import remote
from citycover.files.failures import is_passing
from citycover.files.remote import RemotePath
from citycover.files.store import ObjectStore, PosixStore, Store, pieces, put_text


def test_what_was_put_is_there_by_name_and_below_its_prefix(place: Store) -> None:
    assert place.list("") == ()
    put_text(place, "ledger/0_1.json", "{}")
    assert place.put("ledger/0_0.json", lambda file: file.write(b"one")) == 3
    put_text(place, "ledger-2/0_0.json", "of another")
    put_text(place, "identity.json", "")
    assert place.list("ledger/") == ("ledger/0_0.json", "ledger/0_1.json")
    assert set(place.list("")) == {*place.list("ledger/"), "ledger-2/0_0.json", "identity.json"}
    put_text(place, "ledger/0_0.json", "two")
    assert place.get("ledger/0_0.json") == b"two" and place.get("identity.json") == b""
    place.delete("ledger/0_0.json", "identity.json", "nothing/here")
    assert place.list("ledger/") == ("ledger/0_1.json",)
    for absent in ("identity.json", "ledger", "ledger/0_1.json/c"):
        with pytest.raises(FileNotFoundError):
            place.get(absent)


@given(content=st.binary(max_size=40), start=st.integers(-50, 50), length=st.none() | st.integers(0, 50))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_range_is_that_of_the_bytes(place: Store, content: bytes, start: int, length: int | None) -> None:
    place.put("a", lambda file: file.write(content))
    begin = max(0, len(content) + start) if start < 0 else start
    assert place.get("a", start, length) == content[begin:][:length]


def test_pieces_are_the_whole(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citycover.files.store.PIECE", 1000)
    for size in (0, 5, 1000, 2000, 2005):
        content = os.urandom(size)
        place.put("a", lambda file, content=content: file.write(content))
        assert b"".join(pieces(place, "a")) == content


def test_what_is_large_is_put_there_whole(place: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citycover.files.store._HELD", 1 << 20)
    content = os.urandom(11 << 20)  # a bucket takes it in parts
    assert place.put("a", lambda file: file.write(content)) == len(content)
    assert b"".join(pieces(place, "a")) == content and place.list("") == ("a",)


def test_of_many_that_put_something_new_one_succeeds(place: Store) -> None:
    begin, done = threading.Barrier(8), list[bool]()

    def put(number: int) -> None:
        begin.wait()
        done.append(place.put_new(f"by/{number % 2}", str(number).encode()))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 6 + [True] * 2
    assert not place.put_new("by/0", b"later") and place.get("by/0") != b"later"


def test_a_file_system_without_links_takes_what_is_new_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    place = PosixStore(tmp_path)
    assert place.put_new("a", b"one") and not place.put_new("a", b"two")
    assert place.get("a") == b"one" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_fails_to_be_written_leaves_nothing(place: Store) -> None:
    def fail(_file: object) -> None:
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        place.put("a", fail)
    assert place.list("") == ()


def test_it_crosses_to_another_process(place: Store) -> None:
    put_text(place, "a", "b")
    assert pickle.loads(pickle.dumps(place)).get("a") == b"b"


@pytest.mark.parametrize("key", ["c/0/401", "c/403/0", "c/0/416"])
def test_numbers_in_a_name_are_no_answers(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are told beside what a store answers; 416 would be a part that begins where the object ends."""
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        place = ObjectStore(RemotePath(BUCKET, "work"))
        with pytest.raises(FileNotFoundError):
            place.get(key, 0, 5)
        put_text(place, key, "three")
        assert place.get(key, 5, 5) == b""
        bucket.busy = 1
        with pytest.raises(MachineError, match="the object store does not do it") as error:
            place.get(key, 0, 5)
        assert is_passing(error.value)


def test_of_what_was_put_by_two_the_later_has_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks whether its own lost answer was the last must not be given another one's tag."""
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    at, read = RemotePath(BUCKET, "lock"), RemotePath.read_bytes
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)

        def read_before_another(place: RemotePath, *given: int) -> bytes:
            content = read(place, *given)
            bucket.lost_in = 0
            place.write(b"another's")
            return content

        monkeypatch.setattr(RemotePath, "read_bytes", read_before_another)
        bucket.lost_in = 1
        tag = at.swap(b"ours", None)
        assert tag is not None and at.read_bytes() == b"another's"
        assert at.swap(b"ours again", tag) is None
