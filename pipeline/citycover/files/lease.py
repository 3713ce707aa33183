"""A lock in an object store: an object that its holder writes anew every few seconds.

Nobody's clock is believed. Who finds the object looks at it for a while: while it changes, its holder lives;
once it has stood still for `PATIENCE`, it is taken over, by a swap that only one can win. A holder that finds
another one's object in the place of its own ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Literal

from citycover.errors import CitycoverError, HeldError, StoppedError
from citycover.files.plain import parse_json
from citycover.files.remote import RemotePath

logger = logging.getLogger(__name__)

BEAT = 5.0
"""Seconds between two writes of the holder."""

PATIENCE = 30.0
"""Seconds after which an object that stands still is nobody's."""

FAREWELL = 10.0
"""Seconds that who ends waits at most for a store that is away: what is left there lapses."""


class Lease:
    """Held by one run at a time.

    Args:
        place: of the object.
        stop: is set when another run takes over.
        what: is held by it, in words.
    """

    def __init__(self, place: RemotePath, stop: threading.Event, what: str = "the region") -> None:
        self.place, self._stop, self._what = place, stop, what
        self._token = uuid.uuid4().hex
        self._tag: str | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._left = False
        """It was not waited for any longer."""
        self.lost = False
        """Another run has taken over, or may have: the store was away for too long."""
        self._away: CitycoverError | None = None

    def acquire(self, policy: Literal["leave", "wait", "take"]) -> None:
        """Take it.

        Args:
            policy: where another run holds it: leave, wait for its end, or let it find that it is ours now.

        Raises:
            HeldError: another run holds it, and is left alone.
            StoppedError: `stop` was set meanwhile.
        """
        seen, since = self._take(None), time.monotonic()
        if self._tag is None and policy == "leave":
            logger.warning(
                "another run holds %s, %s; waiting for a sign of life, %.0f s at most",
                self._what, self.holder(), PATIENCE,
            )  # fmt: skip
        while self._tag is None:
            if self._stop.wait(min(1.0, BEAT / 2)):
                raise StoppedError
            found, now = _tag_of(self.place), time.monotonic()
            if found != seen:
                if found is not None and policy == "leave":
                    raise HeldError(
                        f"another run holds {self._what}, {self.holder()}; wait for it, or end it"
                    )
                seen, since = found, now
            if found is None or policy == "take" or now - since > PATIENCE:
                # Who loses it to another one has to look at that one's as long as at any.
                seen, since = self._take(found), time.monotonic()
        if policy == "take" and self._stop.wait(2 * BEAT):  # who held it has seen by then that it is ours
            raise StoppedError
        self._thread = threading.Thread(target=self._beat, name="citycover-lease", daemon=True)
        self._thread.start()

    def release(self, before: Callable[[], None] = lambda: None) -> None:
        """Let go of it, or, where the store is away for longer than `FAREWELL`, let it lapse.

        Args:
            before: what is left to do there while it is held; it may fail as the store does.
        """
        if not farewell(lambda: self._let_go(before), str(self.place)):
            self._left = True
            self._ended.set()

    def _let_go(self, before: Callable[[], None]) -> None:
        try:
            with contextlib.suppress(CitycoverError):
                before()
        finally:
            self._remove()

    def _remove(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._tag is not None and not self.lost:
            with contextlib.suppress(CitycoverError):  # it stands still, and is taken over in a while
                if self.held() and not self._left:  # who comes late might remove another one's
                    self.place.remove()

    def _take(self, tag: str | None) -> str | None:
        """Try to; returns the tag of the object that is there now."""
        self._tag = self.place.swap(self._content(), tag)
        return self._tag or _tag_of(self.place)

    def _content(self) -> bytes:
        told = {"process": os.getpid(), "host": socket.gethostname(), "run": self._token}
        return json.dumps(told | {"beat": time.monotonic()}).encode()

    def held(self) -> bool:
        """Whether the object is this run's, as the store says now: the next beat may be seconds away."""
        try:
            return bool(parse_json(self.place.read_text())["run"] == self._token)
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def refused(self) -> CitycoverError:
        """What a run says that has lost it, to another one or with the store."""
        return self._away or HeldError(f"another run has taken over, {self.holder()}; leave it alone")

    def holder(self) -> str:
        """Who holds it now, in words."""
        try:
            told = parse_json(self.place.read_text())
            return f"process {told['process']} on {told['host']}"
        except FileNotFoundError:
            return "which has ended since"
        except (CitycoverError, OSError, ValueError, TypeError, KeyError):
            return "which does not say who it is"

    def _own_tag(self) -> str | None:
        """Tag of the object that is there, if it is this run's: of a beat whose answer was lost."""
        tag = _tag_of(self.place)
        return tag if self.held() else None

    def _beat(self) -> None:
        held = time.monotonic()
        while not self._ended.wait(BEAT):
            try:
                tag = self.place.swap(self._content(), self._tag) or self._own_tag()
            except CitycoverError as error:  # the store is busy, or away for a moment
                logger.warning("%s", error)
                if time.monotonic() - held < PATIENCE:
                    continue
                self._away, tag = error, None
            if tag is None:
                self.lost = True
                self._stop.set()
                return
            self._tag, held = tag, time.monotonic()


def farewell(do: Callable[[], None], place: str) -> bool:
    """Do what is left to do at a store, beside the thread that ends; whether it was done within `FAREWELL`.

    Args:
        do: asks the store, which may be away: each request is tried for minutes. What it raises in time is
            raised here.
        place: in words.
    """
    raised: list[BaseException] = []

    def tried() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that ends
            raised.append(error)

    thread = threading.Thread(target=tried, name="citycover-farewell", daemon=True)
    thread.start()
    thread.join(FAREWELL)
    if raised:
        raise raised[0]
    if late := thread.is_alive():
        logger.warning(
            "%s: the store has not answered for %.0f s; it is not waited for, and a lock lapses in %.0f s",
            place, FAREWELL, PATIENCE,
        )  # fmt: skip
    return not late


@contextlib.contextmanager
def hold_lease(
    place: RemotePath, policy: Literal["leave", "wait", "take"], stop: threading.Event
) -> Iterator[None]:
    """Hold a lease as long as the context.

    Raises:
        HeldError: another run holds it and is left alone, or has taken over.
        MachineError: the store was away for so long that one may have.
        StoppedError: `stop` was set while it waited.
    """
    lease = Lease(place, stop)
    lease.acquire(policy)
    try:
        yield
    except StoppedError:
        if lease.lost:
            raise lease.refused() from None
        raise
    finally:
        lease.release()


def is_held(place: RemotePath) -> bool:
    """Whether the object is there: a run is under way, or was killed a moment ago."""
    return place.is_file()


def _tag_of(place: RemotePath) -> str | None:
    try:
        return place.look().e_tag
    except FileNotFoundError:
        return None
