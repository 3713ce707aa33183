"""What is known of a scene that was mapped, and whether it still holds."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from citycover.errors import ProductError
from citycover.files.identity import FileMark, FileStamp, sha256_of
from citycover.files.remote import Place
from citycover.files.sidecars import sidecars_of
from citycover.model.builtin import read_builtins
from citycover.model.joint import check_map_model, join, read_map_model
from citycover.product.product import Product
from citycover.region.config import Region
from citycover.region.folder import read_facts

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the file."""

_LOOKS = ("device", "threads", "memory", "workers", "scheduler", "work")
"""Options that say where a map is computed, and change no pixel of it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the region file decides, part by part, as digests: where one differs, work is to be done anew."""

    map: Mapping[str, str]
    """What decides the map."""
    after: Mapping[str, str]
    """What decides what is made of it: refined, polygons, areas."""


def settings_of(region: Region) -> Settings:
    """What the region file decides now; files that it names count with their content.

    Raises:
        CitycoverError: the model is none, or not the one that `require_hash` asks for.
        OSError: a file cannot be read.
    """
    engine = {name: value for name, value in asdict(region.engine).items() if name not in _LOOKS}
    if engine["form"] == "auto":  # no scene is mapped anew because there are other forms by now
        del engine["form"]
    parts = {
        "model": _model(region),
        "imagery": region.imagery,
        "area": region.where,
        "engine": engine,
        "product": region.product,
        "layers": region.layers,
        "labels": region.labels,
    }
    # Polygons and areas are those of the refined map, so they are others where that is another.
    after = {
        name: _digest((region.refine, value))
        for name in ("refine", "polygons", "areas")
        if (value := getattr(region, name)) is not None
    }
    laid = {} if region.mosaic is None else {"mosaic": mosaic_of(region)}
    return Settings({name: _digest(value) for name, value in parts.items()} | laid, after)


def mosaic_of(region: Region) -> str:
    """What of the settings says how the mosaic is laid out."""
    return _digest(region.mosaic)


def _model(region: Region) -> str:
    if region.model is None:  # which one it is depends on the scene
        return " ".join(join([(model, 1.0)], region.tta).sha256 for model in read_builtins())
    model = read_map_model(region.model, region.tta)
    if region.require_hash is not None:  # of scenes that are done, too
        check_map_model(model, region.require_hash)
    return model.sha256


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(_told(value), sort_keys=True).encode()).hexdigest()[:16]


def _told(value: Any) -> Any:
    """A value as plain ones; a file as what it holds."""
    if isinstance(value, BaseModel):
        return {name: _told(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _told(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {name: _told(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_told(item) for item in value]
    if isinstance(value, (str, Path)) and (path := Path(value)).is_absolute():
        if path.suffix.lower() == ".shp" and path.is_file():  # names of its shapes, their CRS lie beside it
            beside = [f for f in sorted(path.parent.iterdir()) if f.stem == path.stem and f.is_file()]
            return [sha256_of(file) for file in beside]
        if path.is_file():
            return sha256_of(path)
        if isinstance(value, str) and glob.has_magic(value):
            return [sha256_of(Path(file)) for file in sorted(glob.glob(value, recursive=True))]  # noqa: PTH207
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, slots=True)
class SceneRecord:
    """A scene that was mapped, and of what."""

    name: str
    files: tuple[str, ...]
    """As the region named them."""
    marks: tuple[FileMark, ...]
    """All that the map was made of, those that the files name in turn too."""
    map: Mapping[str, str]
    after: Mapping[str, str]
    """Empty until all that is made of the map is there."""
    product: str
    """Its mark, which no two products share: see `RegionFolder.mark`."""
    finished: datetime | None
    seconds: float
    pixels: int
    holes: int
    version: str
    """Of citycover."""
    made: Mapping[str, str] = field(default_factory=dict)
    """What was made of the maps of this scene and is to be known: names and marks, see `made.py`."""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {"format": FORMAT, **asdict(self)}

    @property
    def named(self) -> tuple[FileMark, ...]:
        """Marks of the files that the region named."""
        known = {mark.path: mark for mark in self.marks}
        return tuple(known[path] for file in self.files if (path := str(Path(file).absolute())) in known)

    def lost(self) -> tuple[str, ...]:
        """Files that are no more what they were."""
        return tuple(mark.path for mark in self.marks if not mark.holds())

    def copied_in(self, files: Sequence[str]) -> bool:
        """Whether files of it are still there, beside others that may have their content."""
        now = {str(Path(file).absolute()) for file in files}
        return any(mark.path not in now and mark.holds() for mark in self.named)

    def moved_to(self, name: str, files: Sequence[str]) -> SceneRecord | None:
        """The record under another name and other names of files, if those have this content; else None."""
        if len(files) != len(self.files) or len(self.named) != len(self.files):
            return None
        stamps = [FileStamp.of(file) for file in files]
        sizes = [None if stamp is None else stamp.size for stamp in stamps]
        if sizes != [None if mark.stamp is None else mark.stamp.size for mark in self.named]:
            return None
        try:
            marks = [
                FileMark.of(str(Path(file).absolute()), mark.budget)
                for file, mark in zip(files, self.named, strict=True)
            ]
        except OSError:  # to be told of when it is mapped
            return None
        if [mark.digest for mark in marks] != [mark.digest for mark in self.named]:
            return None
        known, aside = {mark.path: mark for mark in self.marks}, set[str]()
        for was, file in zip(self.named, files, strict=True):
            aside |= (old := dict.fromkeys(sidecars_of(was.path))).keys()
            for before, now in zip(old, sidecars_of(file), strict=True):
                marks.append(mark := _mark_now(now))
                if before in known and known[before].digest != mark.digest:
                    return None
        others = [mark for mark in self.marks if mark not in self.named and mark.path not in aside]
        if any(not mark.holds() for mark in others):
            return None
        return replace(self, name=name, files=tuple(files), marks=(*marks, *others))


def record_of(
    name: str, tags: Mapping[str, str], product: Product, mark: str, settings: Settings
) -> SceneRecord:
    """What is to be known of a scene that was just mapped. Reads its files whole: they are warm now.

    Args:
        name: of the scene.
        tags: its files, each with what a store called its content before it was mapped, see `tag_of`.
        product: its map.
        mark: of that.
        settings: by which it was made.

    A file that was changed since the run looked at it for the last time is marked as it was then, so that it
    counts as changed.
    """
    run = product.run
    read = (*run.given.inputs, *(run.labels.files if run.labels else ()))
    marks = {
        file.path: _marked(file.path, FileStamp(file.bytes, file.mtime_ns, file.ctime_ns)) for file in read
    }
    marks |= {file: FileMark(file, None, 0, tag) for file, tag in tags.items() if tag}
    for path in [path for file in tags for path in sidecars_of(file) if path not in marks]:
        marks[path] = _mark_now(path)
    for file in tags:  # an index or a STAC item, which names what was read
        if (stamp := FileStamp.of(path := str(Path(file).absolute()))) is not None and path not in marks:
            marks[path] = FileMark.of(path, stamp.size)
    decided = dict(settings.map)
    if run.given.request.get("model") is not None:  # that which mapped, not that which lay there at the start
        decided["model"] = _digest(run.given.model.sha256)
    return SceneRecord(
        name=name,
        files=tuple(tags),
        marks=tuple(marks.values()),
        map=decided,
        after={},
        product=mark,
        finished=run.timing.finished,
        seconds=run.timing.wall_s,
        pixels=run.amount.pixels,
        holes=len(run.holes),
        version=run.given.versions.get("citycover", ""),
    )


def _mark_now(path: str) -> FileMark:
    """A file as it is now, all of it; it need not be there."""
    stamp = FileStamp.of(path)
    return FileMark.of(path, 0 if stamp is None else stamp.size)


def _marked(path: str, then: FileStamp) -> FileMark:
    now = FileStamp.of(path)
    if now is None:  # across the network, or gone
        return FileMark(path, None if then == FileStamp(0, 0, 0) else then, 0, "")
    return FileMark.of(path, now.size) if now == then else FileMark(path, then, 0, "")


@functools.cache  # to make it takes longer than to read a record
def _adapter() -> TypeAdapter[SceneRecord]:
    return TypeAdapter(SceneRecord)


def read_record_of(path: Place) -> SceneRecord | None:
    """What is known of a scene; None: nothing, or nothing that can be read, so that it is mapped anew."""
    if not path.is_file():
        return None
    try:
        facts = read_facts(path)
        if facts.pop("format", None) != FORMAT:
            raise ProductError(f"{path} is of another version of citycover")
        return _adapter().validate_python(facts)
    except (ProductError, ValidationError):
        logger.warning("%s is damaged or of another version: what it is of counts as new", path)
        return None
