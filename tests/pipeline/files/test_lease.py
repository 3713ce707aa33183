"""A lock in an object store: held by one, given up by who is cut off, taken over from the dead."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from bucket import BUCKET, Bucket, point_at, serving_bucket

from citycover.errors import HeldError, MachineError, StoppedError
from citycover.files import lease as module
from citycover.files import remote
from citycover.files.lease import Lease, hold_lease
from citycover.files.remote import RemotePath

AT = RemotePath(BUCKET, "north/lock.json")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        yield bucket


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "PATIENCE", 3.0)


@pytest.mark.usefixtures("quick")
def test_one_run_holds_a_lease_and_others_leave_wait_or_take_over(bucket: Bucket) -> None:
    at, first, second = AT, threading.Event(), threading.Event()
    held = Lease(at, first)
    held.acquire("leave")
    with pytest.raises(HeldError, match=f"process {os.getpid()}"):
        Lease(at, second).acquire("leave")
    threading.Timer(0.2, held.release).start()
    with hold_lease(at, "wait", second):
        assert at.is_file()
    assert not at.is_file()

    def work() -> None:
        with hold_lease(at, "leave", first):
            with hold_lease(at, "take", second):
                assert first.wait(5)
            raise StoppedError

    with pytest.raises(HeldError, match="taken over"):
        work()
    assert bucket.asked


@pytest.mark.usefixtures("quick")
def test_a_lease_of_the_dead_is_taken_over_by_one(bucket: Bucket) -> None:
    at = AT
    at.write(b'{"process": 1, "host": "gone"}')
    leases = [Lease(at, threading.Event()) for _ in range(4)]
    got: list[Lease] = []

    def acquire(lease: Lease) -> None:
        try:
            lease.acquire("leave")
            got.append(lease)
        except HeldError:
            pass

    threads = [threading.Thread(target=acquire, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lease in got:
        lease.release()
    assert len(got) == 1 and bucket.asked


def test_who_loses_a_lease_of_the_dead_leaves_its_new_holder_in_peace(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before that one has written anew: it is looked at as long as anybody."""
    looks = iter([0.0, 0.0, 31.0])  # the dead one stands still for longer than is waited

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return next(looks, 31.0)

    class Beaten(Lease):
        tries = 0

        def _take(self, tag: str | None) -> str | None:
            self.tries += 1
            if self.tries == 2:
                self.place.write(b'{"process": 2, "host": "quicker"}')
            return super()._take(tag)

    monkeypatch.setattr(module, "BEAT", 0.02)
    monkeypatch.setattr(module, "time", Clock)
    at, stop = AT, threading.Event()
    at.write(b'{"process": 1, "host": "gone"}')
    threading.Timer(1.0, stop.set).start()
    beaten = Beaten(at, stop)
    with pytest.raises(StoppedError):
        beaten.acquire("leave")
    assert beaten.tries == 2 and b"quicker" in at.read_bytes()
    assert bucket.asked


@pytest.mark.usefixtures("quick")
def test_answers_that_are_lost_are_not_taken_for_another_run(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    stop, written = threading.Event(), len(bucket.changes)
    bucket.lost_in = 2
    with hold_lease(AT, "leave", stop):
        while len(bucket.changes) < written + 8:
            assert not stop.wait(0.05)


@pytest.mark.usefixtures("quick")
def test_whether_it_is_held_is_asked_of_the_store(bucket: Bucket) -> None:
    held = Lease(AT, threading.Event())
    assert not held.held()
    held.acquire("leave")
    assert held.held()
    bucket.objects["north/lock.json"] = b'{"process": 2, "host": "later", "run": "another"}'
    assert not held.held() and isinstance(held.refused(), HeldError)
    held.release()
    assert AT.is_file(), "it is another one's"


def test_who_is_cut_off_for_too_long_gives_up_and_says_why(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setattr(remote, "RETRIES", {"max_retries": 0})
    stop = threading.Event()

    def work() -> None:
        with hold_lease(AT, "leave", stop):
            bucket.busy = 10**6
            assert stop.wait(10)
            raise StoppedError

    with pytest.raises(MachineError, match="the object store does not do it"):
        work()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("asked", ["swap", "read_bytes", "remove"])
def test_who_ends_does_not_wait_for_a_store_that_is_away_and_removes_nothing_later(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    """While it beats, asks whether it still holds it, or removes it."""
    monkeypatch.setattr(module, "FAREWELL", 0.2)
    back, waiting, ask = threading.Event(), threading.Event(), getattr(RemotePath, asked)

    def away(*given: Any) -> object:
        waiting.set()
        back.wait()
        return ask(*given)

    held = Lease(AT, threading.Event())
    held.acquire("leave")
    monkeypatch.setattr(RemotePath, asked, away)
    if asked == "swap":
        assert waiting.wait(10)
    held.release()
    assert waiting.is_set() and "has not answered for 0 s" in caplog.text and "lapses in 3 s" in caplog.text
    bucket.objects[AT.key] = b'{"process": 2, "host": "later", "run": "another"}'
    back.set()
    for thread in threading.enumerate():
        if thread.name == "citycover-farewell":
            thread.join()
    assert AT.key in bucket.objects or asked == "remove", "what was asked cannot be taken back"


@pytest.mark.usefixtures("quick")
def test_a_bug_in_what_is_done_in_the_end_is_told_and_the_lease_goes(bucket: Bucket) -> None:
    held = Lease(AT, threading.Event())
    held.acquire("leave")

    def wrong() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        held.release(wrong)
    assert AT.key not in bucket.objects
