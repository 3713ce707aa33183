"""How products are cut into files, and how these are called: the tiles that a box in degrees meets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from citycover.geometry.grid import Bounds

_BANDS = "CDEFGHJKLMNPQRSTUVWX"
"""Letters of the military grid from 80 degrees south, each 8 degrees high, the last 12."""

_WIDER: dict[str, dict[int, tuple[int, int] | None]] = {
    "V": {31: (0, 3), 32: (3, 12)},
    "X": {31: (0, 9), 33: (9, 21), 35: (21, 33), 37: (33, 42), 32: None, 34: None, 36: None},
}
"""Zones around Norway and Svalbard that are not 6 degrees wide: west and east; None: there is none."""


class DegreeTiling(BaseModel):
    """Squares of whole degrees, named by a corner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["degrees"]
    side: int = Field(ge=1, le=90)
    """Degrees."""
    corner: Literal["south-west", "north-west"]
    name: str
    """Format of `lat`, `lon` (whole degrees without sign), `ns` (N or S) and `ew` (E or W)."""

    @field_validator("name")
    @classmethod
    def _is_a_format(cls, name: str) -> str:
        """Only of these fields, and short: a width of a million digits would be a name as long."""
        for _, field, spec, how in Formatter().parse(name):
            if field is None:
                continue
            if field not in ("lat", "lon", "ns", "ew") or how or not re.fullmatch(r"(0\dd)?", spec or ""):
                raise ValueError("fields are {lat:02d}, {lon:03d}, {ns} and {ew}")
            if field in ("ns", "ew") and spec:
                raise ValueError(f"{{{field}}} is a letter and takes no digits")
        return name

    def names(self, box: Bounds) -> Iterator[str]:
        """Names of the tiles that a box meets.

        >>> name = "{ns}{lat:02d}{ew}{lon:03d}"
        >>> tiling = DegreeTiling(kind="degrees", side=3, corner="south-west", name=name)
        >>> list(tiling.names((6.4, -0.1, 6.8, 0.4)))
        ['S03E006', 'N00E006']
        """
        west, south, east, north = box
        for lat in _steps(south, north, self.side):
            for lon in _steps(west, east, self.side):
                yield self._name(lat + (self.side if self.corner == "north-west" else 0), lon)

    def _name(self, lat: int, lon: int) -> str:
        return self.name.format(
            lat=abs(lat), lon=abs(lon), ns="S" if lat < 0 else "N", ew="W" if lon < 0 else "E"
        )


class ZoneTiling(BaseModel):
    """Zones of the military grid, by number and letter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["zones"]

    def names(self, box: Bounds) -> Iterator[str]:
        """Names of the tiles that a box meets.

        >>> list(ZoneTiling(kind="zones").names((11.9, 55.9, 12.1, 56.1)))
        ['32U', '33U', '32V', '33V']
        """
        west, south, east, north = box
        for place, letter in enumerate(_BANDS):
            low = 8 * place - 80
            if low >= north or low + (12 if letter == "X" else 8) <= south:
                continue
            for zone in range(1, 61):
                span = _WIDER.get(letter, {}).get(zone, (6 * zone - 186, 6 * zone - 180))
                if span is not None and span[0] < east and span[1] > west:
                    yield f"{zone:02d}{letter}"


def _steps(low: float, high: float, side: int) -> range:
    """Lower ends of the steps that an interval meets."""
    return range(math.floor(low / side) * side, math.ceil(high / side) * side, side)
