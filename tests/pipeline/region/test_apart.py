"""Parts of one region that have scenes in common are worked on one after the other."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citycover.errors import HeldError, StoppedError
from citycover.files.lock import RunLock
from citycover.region import hold as module
from citycover.region.apart import hold_shard
from citycover.region.folder import RegionFolder
from citycover.region.scenes import Shard


def shards(count: int) -> st.SearchStrategy[Shard]:
    return st.builds(Shard, st.integers(1, count), st.just(count))


@given(st.integers(1, 12).flatmap(shards), st.integers(1, 12).flatmap(shards))
def test_parts_meet_where_a_number_falls_into_both(one: Shard, other: Shard) -> None:
    both = any(
        number % one.count == one.index - 1 and number % other.count == other.index - 1
        for number in range(one.count * other.count)
    )
    assert one.meets(other) == other.meets(one) == both
    assert Shard.named(str(one)) == one


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RegionFolder:
    monkeypatch.setattr(module, "_PAUSE", 0.02)
    folder = RegionFolder(tmp_path / "products")
    folder.prepare("north")
    return folder


def lock(folder: RegionFolder, shard: Shard) -> RunLock:
    return RunLock(folder.own / "locks" / str(shard))


def test_a_part_that_meets_one_under_way_leaves_and_keeps_nothing(folder: RegionFolder) -> None:
    never = threading.Event()
    with lock(folder, Shard(2, 3)):
        with (
            pytest.raises(HeldError, match=r"works on part 2/3 .* of part 1/2; wait for it"),
            hold_shard(folder, Shard(1, 2), "leave", never),
        ):
            pytest.fail("both are under way")
        assert not folder.held("1-of-2")
        with hold_shard(folder, Shard(1, 3), "leave", never):
            assert folder.held("1-of-3")
    with hold_shard(folder, Shard(1, 2), "leave", never):  # the file of the lock is there, its holder is not
        pass


def test_it_waits_until_the_other_is_over(folder: RegionFolder) -> None:
    other = lock(folder, Shard(2, 3))
    other.acquire()
    threading.Timer(0.2, other.release).start()
    with hold_shard(folder, Shard(1, 1), "wait", threading.Event()):
        assert not folder.held("2-of-3") and folder.held("1-of-1")
    stop = threading.Event()
    with lock(folder, Shard(2, 3)):
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(StoppedError), hold_shard(folder, Shard(1, 1), "wait", stop):
            pytest.fail("both are under way")


def test_of_many_that_begin_at_once_no_two_meet(folder: RegionFolder) -> None:
    working: list[Shard] = []
    met: list[tuple[Shard, Shard]] = []
    done: list[Shard] = []

    def work(shard: Shard) -> None:
        with hold_shard(folder, shard, "wait", threading.Event()):
            met.extend((shard, other) for other in working if shard.meets(other))
            working.append(shard)
            threading.Event().wait(0.02)
            working.remove(shard)
            done.append(shard)

    asked = [Shard(1, 2), Shard(2, 2), Shard(1, 3), Shard(2, 3), Shard(1, 1)]
    threads = [threading.Thread(target=work, args=(shard,)) for shard in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [] and set(done) == set(asked)
