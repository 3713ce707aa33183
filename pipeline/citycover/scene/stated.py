"""A scene that a file describes: `scene.toml`, for whatever its rasters do not say themselves.

[[files]]
path = "ortho_*.tif"                       # from the folder of this file on; a pattern means all it matches
bands = ["red", "green", "blue", "nir"]
time = "2024-05-31T10:30:00Z"
nodata = 0
scale = 0.0001                             # what numbers mean: scale * number + offset, in a unit
offset = -0.1
unit = "reflectance"
"""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from citycover.errors import SceneError
from citycover.files.problems import problems_of
from citycover.files.remote import is_remote
from citycover.files.toml import read_toml
from citycover.model.unit import Unit
from citycover.scene.given import Given
from citycover.scene.trust import Trust


class _Files(BaseModel):
    """Rasters that are alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(min_length=1)]
    bands: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    time: str | None = None
    nodata: float | None = None
    scale: float | None = None
    offset: float = 0.0
    unit: Unit | None = None

    @field_validator("time", mode="before")
    @classmethod
    def _iso(cls, value: object) -> str | None:
        """TOML has times of its own."""
        if value is None:
            return None
        text = value.isoformat() if hasattr(value, "isoformat") else str(value)
        try:
            datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"should be a time such as 2024-05-31T10:30:00Z, got {value!r:.60}") from None
        return text.replace("+00:00", "Z")

    @field_validator("scale", "offset")
    @classmethod
    def _a_number(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("must be a number")
        return value

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("must not be 0: every number would mean the same")
        return value

    @property
    def measures(self) -> tuple[tuple[float, float, str | None], ...]:
        """Of each band; empty: as the file says."""
        if self.scale is None and not self.offset and self.unit is None:
            return ()
        return ((1.0 if self.scale is None else self.scale, self.offset, self.unit),)


class _Stated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    files: Annotated[tuple[_Files, ...], Field(min_length=1)]


def stated_rasters(path: Path, trust: Trust) -> Iterator[Given]:
    """The rasters that a scene file names, with what it says of them.

    Raises:
        SceneError: it cannot be understood, matches nothing, or names what it may not.
    """
    try:
        stated = _Stated.model_validate(read_toml(path, "scene file", SceneError))
    except ValidationError as error:
        raise SceneError(f"scene file {path}: {problems_of(error, _Stated)}; mend it there") from None
    folder = path.absolute().parent
    for part in stated.files:
        for name in _matching(folder, part.path, path):
            trust.check(name, str(path.absolute()))
            yield Given(
                name, str(path.absolute()), part.bands, part.time, part.measures, part.nodata, strict=True
            )


def _matching(folder: Path, pattern: str, path: Path) -> list[str]:
    if is_remote(pattern):
        return [pattern]
    whole = str(folder / pattern)
    if not glob.has_magic(pattern) or Path(whole).is_file():
        return [whole]
    inside = glob.glob(pattern, root_dir=folder, recursive=True)  # noqa: PTH207 - `**` and folders of any name
    found = sorted(str(folder / name) for name in inside)
    if not found:
        raise SceneError(f"scene file {path}: no file matches {pattern}; check the pattern")
    return found
