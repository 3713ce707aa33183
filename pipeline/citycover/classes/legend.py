"""Legends: what class numbers mean, how they look, and how one legend maps onto another."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from citycover.errors import ConfigError
from citycover.files.configs import config_names, find_builtin, find_config
from citycover.files.problems import problems_of
from citycover.files.toml import read_toml


def check_line(text: str) -> str:
    """Raise ValueError unless text is what can stand in XML, a log and a terminal: printable, and one line.

    >>> check_line("Built-up (dense)")
    'Built-up (dense)'
    """
    bad = next((c for c in text if not c.isprintable()), None)
    if bad is not None:
        raise ValueError(f"{text[:40]!r} holds the character {bad!r}, which is not printable; leave it out")
    return text


_COLOR = re.compile(r"^#[0-9a-fA-F]{6}$")


class LegendClass(BaseModel):
    """One class: its number in rasters, its name, its colour."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    """Number in the raster; any integer in a label legend, 0..255 in a product."""
    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_line)]
    color: str
    """`#rrggbb`."""

    @field_validator("color")
    @classmethod
    def _is_hex(cls, value: str) -> str:
        if not _COLOR.match(value):
            raise ValueError(f"a colour is written #rrggbb, got {value!r}")
        return value.lower()

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green, blue, 0..255."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True, slots=True)
class Merge:
    """What a remap table does with the ids of another legend: every id of the table stands here once."""

    classes: dict[int, tuple[int, ...]]
    """Our id -> ids of the other legend that became it; empty where there are none."""
    dropped: tuple[int, ...]
    """Ids of the other legend that became nodata."""


class Legend(BaseModel):
    """Classes in the order of the legend file, and remap tables onto or from others.

    `remap[OTHER]` maps class ids of the legend named OTHER to ids of this one; an id that maps to
    `nodata` is dropped on purpose. Ids of OTHER that are missing from the table are unknown.

    Examples:
        >>> water = LegendClass(id=1, name="Water", color="#4080ff")
        >>> land = LegendClass(id=2, name="Land", color="#c0b090")
        >>> legend = Legend(name="two", nodata=0, classes=(water, land))
        >>> legend.names, legend.ids, legend.classes[0].rgb
        (('Water', 'Land'), (1, 2), (64, 128, 255))
        >>> read_legend("worldcover").classes[0].name
        'Tree cover'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str = ""
    source: str = ""
    """Where the classes are defined."""
    nodata: int | None = None
    """Number of pixels without a class; None where the legend has none."""
    classes: tuple[LegendClass, ...] = Field(min_length=1)
    remap: dict[str, dict[int, int]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Legend:
        ids = [c.id for c in self.classes]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"class ids must differ; twice: {twice}")
        names = [c.name for c in self.classes]
        same = sorted({name for name in names if names.count(name) > 1})
        if same:
            raise ValueError(f"class names must differ, or areas could not be told apart; twice: {same}")
        if self.nodata in ids:
            raise ValueError(f"nodata {self.nodata} is also a class id")
        for other, table in self.remap.items():
            stray = sorted({v for v in table.values() if v not in ids and v != self.nodata})
            if stray:
                raise ValueError(f"remap table {other!r} maps to ids that are no class here: {stray}")
        return self

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Class ids in legend order."""
        return tuple(c.id for c in self.classes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Class names in legend order."""
        return tuple(c.name for c in self.classes)

    def differences(self, other: Legend) -> tuple[str, ...]:
        """In words, each number that another legend means something else by; names count but for case."""
        ours, theirs = (dict(zip(one.ids, one.names, strict=True)) for one in (self, other))
        return tuple(
            f"{id_} is {ours.get(id_, 'no class')} in one and {theirs.get(id_, 'no class')} in the other"
            for id_ in dict.fromkeys((*self.ids, *other.ids))
            if ours.get(id_, "").casefold() != theirs.get(id_, "").casefold()
        )

    @property
    def product_nodata(self) -> int:
        """Nodata number of a uint8 product: the legend's own if it fits, else 255."""
        if self.nodata is not None and 0 <= self.nodata <= 255:
            return self.nodata
        return 255

    def check_product(self) -> None:
        """Raise ConfigError unless the ids fit into a uint8 product beside one nodata number."""
        bad = [i for i in self.ids if not 0 <= i <= 255 or i == self.product_nodata]
        if bad:
            raise ConfigError(
                f"legend {self.name!r} has class ids {bad}; a product holds ids 0..255 other than nodata "
                f"{self.product_nodata}; remap them to such numbers"
            )

    def merged(self, other: str) -> Merge:
        """Which ids of legend `other` each of our classes was merged from, and which were dropped.

        Raises:
            ConfigError: there is no remap table for `other`.
        """
        table = self.table_from(other)
        became = {i: tuple(sorted(k for k, v in table.items() if v == i)) for i in self.ids}
        return Merge(became, dropped=tuple(sorted(k for k, v in table.items() if v not in became)))

    def table_from(self, other: str) -> dict[int, int]:
        """Table `id of other -> our id`."""
        if other not in self.remap:
            known = ", ".join(sorted(self.remap)) or "none"
            raise ConfigError(
                f"legend {self.name!r} has no remap table from {other!r}; it has: {known}; "
                f"add [remap.{other}] to the legend file"
            )
        return self.remap[other]


def parse_legend(data: dict[str, object], name: str) -> Legend:
    """Build a legend from a decoded TOML table; `name` is used where the file gives none."""
    try:
        return Legend.model_validate({"name": name, **data})
    except ValidationError as error:
        raise ConfigError(f"legend {name!r} is not valid: {problems_of(error, Legend)}") from None


def read_legend(name_or_file: str | Path) -> Legend:
    """Read a built-in legend by name, or a legend file.

    Raises:
        ConfigError: no such legend, or the file is not a valid one.
    """
    path = find_config("legends", "legend", name_or_file)
    return parse_legend(read_toml(path, "legend file"), path.stem)


def builtin_legend(name: str) -> Legend:
    """A legend that ships with citycover.

    Raises:
        ConfigError: there is none of this name.
    """
    return parse_legend(read_toml(find_builtin("legends", "legend", name), "legend file"), name)


def legend_names() -> tuple[str, ...]:
    """Names of the built-in legends."""
    return config_names("legends")


def legends_that_fit(ids: Collection[int]) -> tuple[str, ...]:
    """Names of the built-in legends that hold all of some ids (or have them as nodata), fewest classes first.

    >>> legends_that_fit([10, 95, 100])
    ('worldcover',)
    """
    wanted = set(ids)
    legends = [read_legend(name) for name in legend_names()]
    fitting = [legend for legend in legends if wanted <= {*legend.ids, legend.nodata}]
    return tuple(legend.name for legend in sorted(fitting, key=lambda legend: len(legend.ids)))


def lookup_table(ids: Iterable[int]) -> NDArray[np.uint8]:
    """(channels,) uint8: legend id of each output channel, for `table[channel_map]`."""
    return np.fromiter(ids, dtype=np.uint8)
