"""A region in an object store: what lies where, without renames.

Names are those of a folder (`folder.py`), but `next` and `earlier`: a product is made on this machine and put
in its place, its catalogue entry last, see `product/upload.py`. Whoever reads by the entries finds it whole.
Of products that are replaced the store keeps what it is told to keep (versioning).
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Literal

from citycover.errors import MachineError, ProductError
from citycover.files.lease import hold_lease, is_held
from citycover.files.remote import Place, RemotePath
from citycover.product.names import SIGN
from citycover.product.upload import MARK, RemoteFolder, drop_remote
from citycover.region.folder import ABOUT, RegionFolder, RegionPlace, read_facts
from citycover.run.remote import begun_here

_TRIES = 20
"""To add a line to a history that others add to, too."""


class RegionBucket(RegionPlace[RemotePath]):
    """A region in an object store."""

    pause: ClassVar[float] = 15.0
    """Seconds between two notes of what a run is at: each is a request."""

    def next_of(self, scene: str) -> RemotePath:
        """Where the next product of a scene is made."""
        return self.map_of(scene)

    def begun(self, scene: str) -> bool:
        """Whether this machine has begun the next product of a scene."""
        return begun_here(self.map_of(scene))

    def mark(self, product: Place) -> str:
        """What no two products share: the tag of its run.json; empty: there is no product."""
        assert isinstance(product, RemotePath), "it is of this store"
        try:
            tag = (product / "run.json").look().e_tag
            return tag or "" if (product / SIGN).is_file() else ""
        except FileNotFoundError:
            return ""

    def lost(self, product: Place) -> tuple[str, ...]:  # noqa: ARG002 - that of a folder takes it
        """Nothing: to ask for each object of each product would be too many requests."""
        return ()

    def names(self, part: str) -> list[str]:
        """Of all objects that a part of the region's own has."""
        return sorted(Path(name).stem for name in (self.own / part).below() if name.endswith(".json"))

    def locks(self) -> list[str]:
        """Shards that are held, or whose run was killed."""
        return self.names("locks")

    def hold(
        self, shard: str, policy: Literal["leave", "wait", "take"], stop: threading.Event
    ) -> AbstractContextManager[None]:
        """Keep other runs of a shard out, on any machine: see `files/lease.py`."""
        return hold_lease(self._lock_of(shard), policy, stop)

    def held(self, shard: str) -> bool:
        """Whether a run of a shard is under way."""
        return is_held(self._lock_of(shard))

    def _lock_of(self, shard: str) -> RemotePath:
        return self.own / "locks" / f"{shard}.json"

    @contextlib.contextmanager
    def new_file(self, part: str, scene: str, ending: str) -> Iterator[Path]:
        """A path to write what is made of a map to; the file is in its place when the block ends."""
        place = self.made_of(part, scene, ending)
        with tempfile.TemporaryDirectory(prefix="citycover-") as folder:
            path = Path(folder) / place.name
            yield path
            place.write(path)

    def prepare(self, name: str) -> None:
        """Mark the prefix, or see that it is this region's.

        Raises:
            ProductError: it is another region's, or holds other things.
        """
        about = self.own / ABOUT
        if not about.is_file():
            # What is the region's own may be there: another part of it has just begun.
            own = f"{self.own.name}/"
            if others := sorted(name for name in self.out.below() if not name.startswith(own)):
                raise ProductError(
                    f"{self.out} holds other content: {', '.join(others[:5])}; a region needs a prefix of "
                    "its own; choose another out"
                )
            about.swap(json.dumps({"format": 1, "name": name}).encode(), None)
        if (other := read_facts(about).get("name")) != name:
            raise ProductError(
                f"{self.out} is the prefix of the region {other!r}, not of {name!r}; choose another out, or "
                "keep the name"
            )

    def place(self, scene: str, keep: int) -> None:
        """The next product of a scene is in its place already."""

    def put_aside(self, scene: str, keep: int) -> None:  # noqa: ARG002 - that of a folder takes it
        """Take a product away that none takes the place of; the store keeps what it is told to keep.

        Raises:
            ProductError: something else lies there.
        """
        if self.map_of(scene).below():
            drop_remote(self.map_of(scene))

    def rename(self, old: str, new: str) -> None:
        """A scene has another name now; its product, and what is made of it, go along, the map last.

        Raises:
            ProductError: something else lies where a product is to be.
        """
        for part in ("polygons", "areas"):
            for name in (self.out / part).below():
                if Path(name).stem == old:
                    source = self.out / part / name
                    source.copy_to(source.with_name(new + source.suffix))
                    source.remove()
        for source, target in (
            (self.refined_of(old), self.refined_of(new)),
            (self.map_of(old), self.map_of(new)),
        ):
            _move(source, target)

    def note_run(self, facts: Mapping[str, Any]) -> None:
        """Add a line to the history.

        Raises:
            MachineError: others add to it without end.
        """
        line = (json.dumps(facts, default=str) + "\n").encode()
        for _ in range(_TRIES):
            try:
                tag, before = self.history.look().e_tag, self.history.read_bytes()
            except FileNotFoundError:
                tag, before = None, b""
            if self.history.swap(before + line, tag) is not None:
                return
        raise MachineError(f"{self.history} is written by others all the time; run the same command again")


AnyRegion = RegionFolder | RegionBucket


def region_at(out: Place) -> AnyRegion:
    """The region that is, or is to be, at a place."""
    return RegionBucket(out) if isinstance(out, RemotePath) else RegionFolder(out)


def _move(source: RemotePath, target: RemotePath) -> None:
    """Move a product, or go on with it where that was ended.

    Raises:
        ProductError: another product is there.
    """
    names = sorted(source.below())
    files = [name for name in names if name != SIGN]
    if SIGN in names:
        there = RemoteFolder.look(target)
        if there.finished and (target / "run.json").read_bytes() != (source / "run.json").read_bytes():
            raise ProductError(
                f"{target} is there, where that of {source} is to be; move it away and run again"
            )
        (target / MARK).write(b"{}")
        for name in (*files, SIGN):
            (source / name).copy_to(target / name)
        (target / MARK).remove()
        (source / SIGN).remove()
    for name in files:
        (source / name).remove()
