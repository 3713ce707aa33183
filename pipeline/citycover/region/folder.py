"""The folder of a region: where products are, and how one takes the place of another.

    maps/SCENE/        products
    refined/SCENE/     tidier ones, polygons/SCENE.gpkg, areas/SCENE.csv: where the region file asks for them
    earlier/SCENE/T/   products that were replaced, as many as are kept
    runs.jsonl         one line a run
    .region/           what was found of each scene; the product that is being made

In an object store names are the same: see `bucket.py`.

A product is made beside the one that is there, and takes its place when it is whole: who reads a map never
finds half of one, and never none.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from citycover.errors import HeldError, ProductError
from citycover.files.atomic import sync_folder, write_atomic
from citycover.files.failures import machine_errors
from citycover.files.identity import sha256_of
from citycover.files.lock import RunLock
from citycover.files.plain import parse_json
from citycover.files.remote import Place, RemotePath
from citycover.product.folder import holds_product, lost_rasters
from citycover.region.earlier import Earlier
from citycover.region.hold import hold
from citycover.store.work import WORK, is_store

_OWN = ".region"

ABOUT = "region.json"
"""Says whose a folder is."""

_PARTS = ("next", "scenes", "failures", "now", "locks")


P = TypeVar("P", Path, RemotePath)
"""What the names are of."""


@dataclass(frozen=True)
class RegionPlace(Generic[P]):
    """Names below the place of a region, on this machine or in an object store."""

    out: P

    @property
    def own(self) -> P:
        """What is citycover's alone."""
        return self.out / _OWN

    @property
    def history(self) -> P:
        """One line a run."""
        return self.out / "runs.jsonl"

    @property
    def maps(self) -> P:
        """Where products are."""
        return self.out / "maps"

    def map_of(self, scene: str) -> P:
        """The product of a scene."""
        return self.maps / scene

    def refined_of(self, scene: str) -> P:
        """The tidier product."""
        return self.out / "refined" / scene

    def made_of(self, part: str, scene: str, ending: str) -> P:
        """What else is made of the map of a scene."""
        return self.out / part / f"{scene}.{ending}"

    def record_of(self, scene: str) -> P:
        """What is known of a scene."""
        return self.own / "scenes" / f"{scene}.json"

    def failure_of(self, scene: str) -> P:
        """Why a scene failed the last time."""
        return self.own / "failures" / f"{scene}.json"

    def begun_of(self, scene: str) -> P:
        """What files of a store held when the map of a scene was begun."""
        return self.own / "begun" / f"{scene}.json"

    def now_of(self, shard: str) -> P:
        """What a run is at."""
        return self.own / "now" / f"{shard}.json"


class RegionFolder(RegionPlace[Path]):
    """A region on this machine."""

    pause: ClassVar[float] = 2.0
    """Seconds between two notes of what a run is at."""

    def next_of(self, scene: str) -> Path:
        """Where the next product of a scene is made."""
        return self.own / "next" / scene

    def begun(self, scene: str) -> bool:
        """Whether the next product of a scene is there, in part or whole."""
        made = self.next_of(scene)
        return holds_product(made) or is_store(made / WORK)

    def mark(self, product: Place) -> str:
        """What no two products share: the sha256 of its run.json; empty: there is no product."""
        assert isinstance(product, Path), "it is of this folder"
        try:
            return sha256_of(product / "run.json") if holds_product(product) else ""
        except OSError:
            return ""

    def lost(self, product: Place) -> tuple[str, ...]:
        """Rasters of a product that are gone or cut."""
        assert isinstance(product, Path), "it is of this folder"
        return lost_rasters(product)

    def names(self, part: str) -> list[str]:
        """Of all files that a part of the region's own has."""
        return sorted(path.stem for path in (self.own / part).glob("*.json"))

    def locks(self) -> list[str]:
        """Shards that are held, or were once."""
        return sorted(path.name for path in (self.own / "locks").glob("*"))

    def hold(
        self, shard: str, policy: Literal["leave", "wait", "take"], stop: threading.Event
    ) -> AbstractContextManager[None]:
        """Keep other runs of a shard out: see `hold`."""
        return hold(self._lock_of(shard), policy, stop)

    def held(self, shard: str) -> bool:
        """Whether a run of a shard is under way."""
        return RunLock(self._lock_of(shard)).taken()

    def _lock_of(self, shard: str) -> Path:
        return self.own / "locks" / shard

    @contextlib.contextmanager
    def new_file(self, part: str, scene: str, ending: str) -> Iterator[Path]:
        """A path to write what is made of a map to; the file is in its place when the block ends."""
        yield self.made_of(part, scene, ending)

    def prepare(self, name: str) -> None:
        """Make the folder, or see that it is this region's.

        Raises:
            ProductError: it is another region's, or holds other things.
            MachineError: it cannot be written.
        """
        with machine_errors(self.out):
            if self.out.exists() and not self.out.is_dir():
                raise ProductError(f"{self.out} is a file; a region has a folder; choose another out")
            about = self.own / ABOUT
            if not about.is_file():
                self._check_free()
            elif (other := read_facts(about).get("name")) != name:
                raise ProductError(
                    f"{self.out} is the folder of the region {other!r}, not of {name!r}; choose another out, "
                    "or keep the name"
                )
            for folder in (*(self.own / part for part in _PARTS), self.out / "maps"):
                folder.mkdir(parents=True, exist_ok=True)
            if not about.is_file():
                write_atomic(about, json.dumps({"format": 1, "name": name}))

    def _check_free(self) -> None:
        if self.own.is_dir():  # it was a region's, and lost the file that says whose
            return
        if others := sorted(path.name for path in self.out.iterdir()) if self.out.exists() else []:
            raise ProductError(
                f"{self.out} holds other content: {', '.join(others[:5])}; a region needs a folder of its "
                "own, empty or not existing yet; choose another out"
            )

    def place(self, scene: str, keep: int) -> None:
        """Put the finished next product of a scene in its place; one that is there is kept or goes.

        May be called again wherever it was ended.

        Raises:
            MachineError: it cannot be written.
            HeldError: another run, in other shards, has put it there.
        """
        made, place = self.next_of(scene), self.map_of(scene)
        with machine_errors(place):
            if not made.is_dir():
                raise HeldError(f"another run has just put {scene} in its place; run the same command again")
            if os.path.lexists(place):
                self._earlier_of(scene).put(place)
            made.rename(place)
            for folder in (place.parent, made.parent):
                sync_folder(folder)
            self._earlier_of(scene).forget(keep)

    def put_aside(self, scene: str, keep: int) -> None:
        """Take a product away that none takes the place of; it is kept among the earlier ones, or goes.

        May be called again wherever it was ended.

        Raises:
            MachineError: it cannot be moved.
        """
        place = self.map_of(scene)
        with machine_errors(place):
            if os.path.lexists(place):
                self._earlier_of(scene).put(place)
                sync_folder(place.parent)
            self._earlier_of(scene).forget(keep)

    def _earlier_of(self, scene: str) -> Earlier:
        return Earlier(self.out / "earlier" / scene, self.own / "earlier" / f"{scene}.json")

    def rename(self, old: str, new: str) -> None:
        """A scene has another name now; its product, and what is made of it, go along.

        The map goes last: who was ended before goes on with the rest.

        Raises:
            ProductError: something else lies where a product is to be.
            MachineError: it cannot be written.
        """
        with machine_errors(self.out):
            files = [
                file
                for part in ("polygons", "areas")
                for file in (self.out / part).glob(f"{old}.*")
                if file.stem == old
            ]
            for file in files:
                file.replace(file.with_name(new + file.suffix))
                sync_folder(file.parent)
            for source, target in [
                (self.out / part / old, self.out / part / new) for part in ("refined", "maps")
            ]:
                if not source.exists():
                    continue
                if os.path.lexists(target):
                    raise ProductError(
                        f"{target} is there, where that of {old} is to be; move it away and run again"
                    )
                source.rename(target)
                sync_folder(target.parent)

    def note_run(self, facts: Mapping[str, Any]) -> None:
        """Add a line to the history."""
        with machine_errors(self.history):
            fd = os.open(self.history, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:  # in one write, so that lines of shards that end together do not mix
                end = os.lseek(fd, 0, os.SEEK_END)
                cut = "\n" if end and os.pread(fd, 1, end - 1) != b"\n" else ""  # by a power cut
                os.write(fd, (cut + json.dumps(facts, default=str) + "\n").encode())
                os.fsync(fd)
            finally:
                os.close(fd)


def read_facts(path: Place) -> dict[str, Any]:
    """What a file of the region's own says.

    Raises:
        ProductError: it cannot be read, or is damaged.
    """
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProductError(f"{path} cannot be read: {error}; remove it, and its scene is made anew") from None
    if not isinstance(facts, dict):
        raise ProductError(f"{path} is damaged; remove it, and its scene is made anew")
    return facts


def write_facts(place: Place, text: str) -> None:
    """Write a file of the region's own, wholly or not at all.

    Raises:
        MachineError: it cannot be written.
    """
    if isinstance(place, RemotePath):
        place.write(text.encode())
        return
    with machine_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(place, text)


def remove_facts(place: Place) -> None:
    """Remove a file of the region's own, if it is there.

    Raises:
        MachineError: it stays.
    """
    if isinstance(place, RemotePath):
        place.remove()
        return
    with machine_errors(place):
        place.unlink(missing_ok=True)
