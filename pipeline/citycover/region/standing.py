"""What is to be done with each scene of a region: told by content, never by dates alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from citycover.files.failures import machine_errors
from citycover.region.after import is_there
from citycover.region.bucket import AnyRegion, region_at
from citycover.region.config import Region
from citycover.region.record import SceneRecord, Settings, read_record_of
from citycover.region.scenes import RegionScene

State = Literal["new", "changed", "unfinished", "renamed", "incomplete", "done"]
"""Never mapped; mapped of something else; being mapped; mapped under another name; mapped, but not all that
is made of it is there; nothing to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a scene stands."""

    scene: RegionScene
    state: State
    why: str = ""
    """In words: of `changed` what differs, of `renamed` its earlier name, of `incomplete` what is lacking."""
    record: SceneRecord | None = None
    """Of the map that is there, if there is one that counts."""
    earlier: str = ""
    """Of `renamed`: the name that it had, which may be the same: its files had others."""


@dataclass(frozen=True, slots=True)
class _Change:
    """In what a scene differs from that which was mapped."""

    parts: tuple[str, ...] = ()
    """Of the region file."""
    files: bool = False
    """It has other files."""
    lost: tuple[str, ...] = ()
    """Of the same files those whose content is another one."""

    def __bool__(self) -> bool:
        return bool(self.parts or self.files or self.lost)

    def __str__(self) -> str:
        content = (f"content of {path}" for path in self.lost[:3])
        return ", ".join((*self.parts, *(["files"] if self.files else []), *content))


@dataclass(frozen=True, slots=True)
class Survey:
    """All scenes of a region and what was mapped earlier."""

    region: Region
    folder: AnyRegion
    settings: Settings
    scenes: Mapping[str, RegionScene]
    gone: Mapping[str, SceneRecord]
    """Of scenes that the region has no more; their products stay."""

    @classmethod
    def of(cls, region: Region, settings: Settings, scenes: Sequence[RegionScene]) -> Survey:
        """Look at what there is."""
        folder = region_at(region.out)
        named = {scene.name: scene for scene in scenes}
        gone = {}
        for name in folder.names("scenes"):
            if name not in named and (record := read_record_of(folder.record_of(name))) is not None:
                gone[name] = record
        return cls(region, folder, settings, named, gone)

    def todo(self, standings: Sequence[Standing], limit: int | None) -> list[Standing]:
        """What has something to do, up to a limit; what failed the last time last: it bars no other."""
        left = [standing for standing in standings if standing.state != "done"]
        left.sort(key=lambda standing: self.folder.failure_of(standing.scene.name).is_file())
        return left[:limit]

    def standing(self, name: str) -> Standing:
        """Where a scene stands now.

        Raises:
            MachineError: what there is of it cannot be read.
        """
        with machine_errors(self.folder.out):
            return self._standing(name)

    def _standing(self, name: str) -> Standing:
        scene, folder = self.scenes[name], self.folder
        record = read_record_of(folder.record_of(name))
        change: _Change | None = None
        mark = folder.mark(folder.map_of(name))
        if record is not None and mark and mark == record.product:
            change = self._change(scene, record)
            if lost := folder.lost(folder.map_of(name)):
                return Standing(scene, "changed", f"{', '.join(lost)} of its product gone or cut")
            if not change:
                missing = ", ".join(self.lacking(record))
                return Standing(scene, "incomplete" if missing else "done", missing, record)
            if change == _Change(files=True) and (moved := record.moved_to(name, scene.files)) is not None:
                return Standing(scene, "renamed", name, moved, earlier=name)
        if folder.begun(name):
            return Standing(scene, "unfinished")
        if mark:  # of a product that no record tells of nothing is known
            return Standing(scene, "changed", "product" if change is None else str(change))
        if (found := self._renamed(scene)) is not None:
            earlier, moved = found
            return Standing(scene, "renamed", earlier, moved, earlier=earlier)
        return Standing(scene, "new")

    def _change(self, scene: RegionScene, record: SceneRecord) -> _Change:
        parts = tuple(name for name, digest in self.settings.map.items() if record.map.get(name) != digest)
        if record.files != scene.files:
            return _Change(parts, files=True)
        return _Change(parts, lost=record.lost())

    def lacking(self, record: SceneRecord) -> tuple[str, ...]:
        """Steps whose outcome was not made, not as it is asked for now, or is gone."""
        region, folder = self.region, self.folder
        return tuple(
            step
            for step, digest in self.settings.after.items()
            if record.after.get(step) != digest or not is_there(region, folder, record.name, step)
        )

    def _renamed(self, scene: RegionScene) -> tuple[str, SceneRecord] | None:
        """The name that a scene had earlier, and its record under the new one."""
        for old, record in self.gone.items():
            product = self.folder.map_of(old)
            if record.map != self.settings.map or self.folder.mark(product) != record.product:
                continue
            if self.folder.lost(product):
                continue
            if record.copied_in(scene.files):  # it has its own product, whoever asks for it today
                continue
            if (moved := record.moved_to(scene.name, scene.files)) is not None:
                return old, moved
        return None
