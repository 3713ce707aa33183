"""What a run of a region is at, written down for those who ask from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from citycover.errors import CitycoverError, ProductError
from citycover.files.plain import to_json
from citycover.files.remote import Place
from citycover.job.watch import Watch, with_share
from citycover.region.bucket import AnyRegion
from citycover.region.folder import read_facts, remove_facts, write_facts


@dataclass(frozen=True, slots=True)
class Now:
    """What a run is at."""

    shard: str
    started: datetime
    scenes: int
    """That are to be worked on."""
    ended: int = 0
    """Of them, those that are through, well or not."""
    failed: int = 0
    scene: str = ""
    """That it is at."""
    share: float = 0.0
    """Of that one's windows that went by."""
    pixels: int = 0
    """Mapped in this run, in scenes that are through."""
    seconds: float = 0.0
    """That those took."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When this was written."""
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, if scenes that are left are like those that are through; None: not known."""
        if not self.ended or not self.seconds:
            return None
        return self.seconds / self.ended * max(0.0, self.scenes - self.ended - self.share)


class NowFile:
    """Keeps a note of what a run is at; who cannot write it goes on all the same.

    Args:
        folder: of the region; the note goes when the run ends.
        now: what it is at, at first.
    """

    def __init__(self, folder: AnyRegion, now: Now) -> None:
        self.folder, self.now, self._written = folder, now, 0.0

    def note(self, *, soon: bool = False, **changes: Any) -> None:
        """Note a change; one that comes `soon` after another may be left out."""
        self.now = replace(self.now, **changes, at=datetime.now(UTC))
        if soon and time.monotonic() - self._written < self.folder.pause:
            return
        self._written = time.monotonic()
        with contextlib.suppress(CitycoverError):
            write_facts(self.folder.now_of(self.now.shard), to_json(asdict(self.now)))

    def forget(self) -> None:
        """The run ends."""
        with contextlib.suppress(CitycoverError):
            remove_facts(self.folder.now_of(self.now.shard))

    def beside(self, watch: Watch) -> Watch:
        """A watch of one map that also notes how far it is."""
        return with_share(watch, lambda share: self.note(soon=True, share=share))


def read_now(path: Place) -> Now | None:
    """What a run is at; None: there is none, or it cannot be read just now."""
    try:
        return TypeAdapter(Now).validate_python(read_facts(path))
    except (ProductError, ValidationError):
        return None
