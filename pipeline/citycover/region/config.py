"""The region file: which scenes, which model, what is made of each map, and what happens on failures."""

from __future__ import annotations

import glob
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from citycover.derive.refine import Steps
from citycover.errors import ConfigError
from citycover.evidence.request import LabelRequest
from citycover.files.local import is_path, local_name
from citycover.files.problems import problems_of
from citycover.files.remote import Place, place_of
from citycover.files.toml import read_toml
from citycover.geometry.positions import KNOTS
from citycover.geometry.tiles import Tile
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions, Where

T = TypeVar("T")

_NAME = re.compile(r"[^\W_][\w .+-]*")
"""What can be a folder anywhere, and is no hidden one."""

_LONGEST = 200
"""Bytes of a name; file systems take 255, with what is added to it."""


def check_name(text: str) -> str:
    """Raise ValueError unless text can name a scene, whose product lies in a folder of that name.

    >>> check_name("harbour 2026-05")
    'harbour 2026-05'
    """
    if not _NAME.fullmatch(text) or len(text.encode()) > _LONGEST:
        raise ValueError(
            f"{text[:60]!r} cannot name a folder everywhere; begin with a letter or a digit, and go on with "
            f"letters, digits, spaces and . _ + -, {_LONGEST} bytes at most"
        )
    return text


def _place(value: object) -> Place:
    """A place as it is written; raise ValueError where it is no text."""
    if not isinstance(value, str | Place):
        raise ValueError(f'should be text, "...", got {value!r:.60}')  # noqa: TRY004 - Pydantic takes no TypeError
    return place_of(value)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SceneSource(_Part):
    """Where scenes are: files by name or by pattern."""

    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Paths, or patterns (`*`, `?`, `[..]`, `**`), from the folder of the region file on."""
    by: Literal["file", "folder"] = "file"
    """What one scene is: each file, or all that lie in one folder."""
    name: str | None = None
    """Given: all files together are one scene, and this is its name."""

    @model_validator(mode="after")
    def _named(self) -> SceneSource:
        if self.name is not None:
            check_name(self.name)
            if self.by == "folder":
                raise ValueError("with a name all files are one scene; leave out by")
        return self


class Mosaic(_Part):
    """All files are sheets of one whole; its products are squares of a fixed grid."""

    grid: str
    """Lattice of the whole: `EPSG:32633/10` for pixels of 10 of its units, or a raster that lies on it."""
    tile: Annotated[int, Field(gt=0, multiple_of=KNOTS)]
    """Pixels of the lattice along a side of a tile."""


class Polygons(_Part):
    """Polygons of each map: see `vectorize`."""

    format: Literal["parquet", "gpkg", "fgb", "geojsonl"] = "gpkg"
    min_area: Annotated[float, Field(ge=0)] = 0.0
    """Square metres."""
    simplify: Annotated[float, Field(ge=0)] = 0.0
    """Metres."""


class Areas(_Part):
    """A table of areas of each map: see `zonal_areas`."""

    format: Literal["csv", "json", "parquet"] = "csv"
    zones: Path | None = None
    by: str | None = None
    """Column that names the zones."""

    @model_validator(mode="after")
    def _of_zones(self) -> Areas:
        if self.by is not None and self.zones is None:
            raise ValueError(f"by = {self.by!r} names zones, and there are none; give zones, or leave out by")
        return self


class Policy(_Part):
    """What happens when something is in the way."""

    held: Literal["leave", "wait", "take"] = "leave"
    """Where another run of the region is under way: leave, wait for its end, or end it and go on."""
    retries: Annotated[int, Field(ge=0, le=100)] = 1
    """How often a scene is tried again that the machine failed (memory, disk, device), and no other."""
    keep: Annotated[int, Field(ge=0)] = 1
    """How many earlier products of a scene are kept when a new one takes their place."""


class Region(_Part):
    """What a region file says; paths are those from its folder on, made whole."""

    name: str
    out: Annotated[Place, BeforeValidator(_place)]
    """Folder, or `s3://bucket/prefix`."""
    scenes: Annotated[tuple[SceneSource, ...], Field(min_length=1)]
    mosaic: Mosaic | None = None
    """None: every scene is a product by itself."""
    model: str | tuple[str, ...] | None = None
    """Model file or name of a built-in one; several, with their weights (`a.pt=2`), are averaged; None: the
    built-in that fits the bands of each scene."""
    tta: str = "none"
    """How windows are turned, to be mapped once more and averaged: none, flips or d4."""
    require_hash: str | None = None
    imagery: Imagery = Imagery(())
    where: Where = Where()
    engine: EngineOptions = EngineOptions()
    product: ProductOptions = ProductOptions()
    layers: tuple[str, ...] = ()
    labels: LabelRequest | None = None
    refine: Steps | None = None
    polygons: Polygons | None = None
    areas: Areas | None = None
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _sensible(self) -> Region:
        check_name(self.name)
        if self.product.overwrite or self.product.restart:
            raise ValueError(
                "product.overwrite and product.restart are decided scene by scene; leave them out"
            )
        if self.imagery.files:
            raise ValueError("imagery.files: which files there are stands under [[scenes]]; leave it out")
        if self.mosaic is not None and (why := self._no_mosaic()):
            raise ValueError(f"mosaic: {why}")
        return self

    def _no_mosaic(self) -> str:
        """Why the rest does not go with a mosaic; empty: it does."""
        if self.model is None:
            return "tiles are to match, so they need one model; give model"
        if self.labels is not None:
            return "labels are believed scene by scene, so that tiles would not match; leave out labels"
        if self.imagery.resample:
            return "its grid says how large pixels are; leave out imagery.resample"
        if self.imagery.laying.grid is not None:
            return "it has a grid of its own; leave out imagery.laying.grid"
        if self.where.bbox is not None:
            return "tiles take polygons; give where.aoi instead of where.bbox"
        if any(source.name is not None or source.by != "file" for source in self.scenes):
            return "all files are its sheets; leave out name and by under [[scenes]]"
        return ""

    def request(self, files: tuple[str, ...], out: Place, tile: Tile | None = None) -> MapRequest:
        """The map of one scene, or of a tile."""
        laying = self.imagery.laying
        if self.mosaic is not None:
            laying = replace(laying, grid=self.mosaic.grid)
        return MapRequest(
            imagery=replace(self.imagery, files=files, laying=laying),
            out=out,
            model=self.model,
            where=replace(self.where, tile=tile),
            engine=self.engine,
            product=self.product,
            labels=self.labels,
            require_hash=self.require_hash,
            layers=self.layers,
            tta=self.tta,
        )


def read_region(path: Path) -> Region:
    """Read a region file.

    Raises:
        ConfigError: it cannot be read, or says something that no region can be.
    """
    data = read_toml(path, "region file")
    if isinstance(data.get("imagery"), dict):
        data["imagery"] = {"files": (), **data["imagery"]}
    try:
        region = Region.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"region file {path}: {problems_of(error, Region)}; mend it there") from None
    except ConfigError as error:
        raise ConfigError(f"region file {path}: {error}") from None
    return _anchored_region(region, path.absolute().parent)


def region_of(request: MapRequest) -> Region:
    """The region that a map of many scenes is: each file is one, its product lies in `maps` under its name.

    Raises:
        ConfigError: the request says something that no region can be.
    """
    same = {f.name: getattr(request, f.name) for f in fields(request) if f.name != "out"}
    files = same["imagery"].files
    same["imagery"] = replace(request.imagery, files=())
    out = request.out.absolute() if isinstance(request.out, Path) else request.out
    try:
        region = Region(name=out.name, out=out, scenes=(SceneSource(files=files),), **same)
    except ValidationError as error:
        raise ConfigError(f"many scenes at once: {problems_of(error, Region)}") from None
    return _anchored_region(region, Path.cwd())


def _anchored_region(region: Region, folder: Path) -> Region:
    """The region with paths that hold from any working directory."""
    changes: dict[str, Any] = {
        name: _anchored(getattr(region, name), folder) for name in ("out", "imagery", "where", "refine")
    }
    if (grid := region.imagery.laying.grid) is not None:
        laying = replace(region.imagery.laying, grid=_file_there(grid, folder))
        changes["imagery"] = replace(changes["imagery"], laying=laying)
    if region.refine is not None and region.refine.to is not None:
        changes["refine"] = replace(changes["refine"], to=_file_there(region.refine.to, folder))
    if region.mosaic:
        changes["mosaic"] = region.mosaic.model_copy(update={"grid": _file_there(region.mosaic.grid, folder)})
    if region.areas:
        changes["areas"] = region.areas.model_copy(update={"zones": _anchored(region.areas.zones, folder)})
    if region.model is not None:
        changes["model"] = _model_there(region.model, folder)
    if (labels := region.labels) is not None:
        legend = None if labels.legend is None else _if_there(labels.legend, folder)
        files = tuple(_if_there(str(file), folder) for file in labels.files)
        changes["labels"] = replace(labels, files=files, legend=legend)
    changes["scenes"] = tuple(
        source.model_copy(update={"files": tuple(_from(folder, file) for file in source.files)})
        for source in region.scenes
    )
    return region.model_copy(update=changes)


def _from(folder: Path, file: str) -> str:
    """A path or pattern from a folder on; what lies across the network, or in an archive, as it is."""
    file = local_name(file)
    return str(folder / file) if is_path(file) else file


def _file_there(name: str, folder: Path) -> str:
    """A name that may be a file: the path from the folder on if there is one."""
    return str(folder / name) if (folder / name).is_file() else name


def _if_there(name: str, folder: Path) -> str:
    """A name that may be a file or a pattern: the path from the folder on if it is one."""
    is_path = "/" in name or glob.has_magic(name) or (folder / name).is_file()
    return _from(folder, name) if is_path else name


def _model_there(model: str | tuple[str, ...], folder: Path) -> str | tuple[str, ...]:
    """Names of models that may be files, with or without a weight."""
    if not isinstance(model, str):
        return tuple(str(_model_there(name, folder)) for name in model)
    file, equals, weight = model.rpartition("=")
    if equals and not (folder / model).is_file():
        return f"{_if_there(file, folder)}={weight}"
    return _if_there(model, folder)


def _anchored(value: T, folder: Path) -> T:
    """A value whose paths, however deep, are those from a folder on."""
    found: Any = value
    if isinstance(value, Path):
        found = folder / value
    elif isinstance(value, tuple):
        found = tuple(_anchored(item, folder) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{f.name: _anchored(getattr(value, f.name), folder) for f in fields(value)})
    return found  # type: ignore[no-any-return]
