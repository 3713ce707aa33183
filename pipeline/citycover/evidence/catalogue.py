"""Land-cover products that are known by name: where their files are, what they mean, whose they are.

A product is a file of `configs/labels`, or one of the user's own. Which of its files a place needs is told
from their names, `Tile`; nothing is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from citycover.errors import ConfigError
from citycover.evidence.tiling import DegreeTiling, ZoneTiling
from citycover.files.configs import config_names, config_path
from citycover.files.problems import problems_of
from citycover.files.toml import read_toml
from citycover.geometry.grid import Bounds

_BARE = re.compile(r"[\w-]+")
"""What is a name and no path."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Edition(_Value):
    """A product as it was published for one year."""

    file: str
    """Address (`https://...`), or name where files are not to be fetched one by one; `{tile}` is the tile."""
    band: int = Field(default=1, ge=1)
    """Of the file that holds this year."""
    asset: str | None = None
    """Where `file` is the address of a STAC item: which of its assets is the file."""

    @model_validator(mode="after")
    def _items_have_addresses(self) -> Edition:
        if self.asset is not None and "://" not in self.file:
            raise ValueError("a STAC item has an address, https://...")
        return self


class LabelProduct(_Value):
    """A land-cover product with a name.

    Attributes:
        title: as it is credited.
        legend: name of the legend that its numbers are written in.
        nodata: numbers that say nothing; the first is written where there are none.
        coverage: west, south, east, north of the product, degrees.
        licence: SPDX identifier.
        attribution: what its licence asks to be said; `{year}` is the edition's.
        page: where people find it.
        tiling: how it is cut into files.
        years: editions by year; the latest is taken where none is asked for.
        export: how to get a file of it, where it is not published as files at all.
    """

    title: str
    legend: str
    nodata: Annotated[tuple[int, ...], Field(min_length=1)]
    coverage: tuple[float, float, float, float]
    licence: str
    attribution: str
    page: str
    tiling: DegreeTiling | ZoneTiling | None = Field(default=None, discriminator="kind")
    years: Mapping[int, Edition] = {}
    export: str | None = None

    @model_validator(mode="after")
    def _one_way_to_its_files(self) -> LabelProduct:
        if (self.export is None) != (bool(self.years) and self.tiling is not None):
            raise ValueError("a product has either a tiling and years, or an export")
        return self


@dataclass(frozen=True, slots=True)
class Credit:
    """Whose labels they are."""

    title: str
    year: int
    licence: str
    attribution: str
    source: str
    """Address of the tile, or the page of its product."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A file of a product."""

    name: str
    product: str
    """Name of the product."""
    year: int
    source: str
    """Address, or name of a file that is fetched by hand."""
    band: int
    asset: str | None = None
    """Of the STAC item at the address; None: the file itself is there."""

    @property
    def fetched(self) -> bool:
        """Whether the file has an address of its own."""
        return "://" in self.source

    @property
    def file(self) -> str:
        """Name of the file alone."""
        return f"{self.name}.tif" if self.asset else self.source.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Edited:
    """One year of a product that was asked for by name."""

    name: str
    product: LabelProduct
    year: int

    @property
    def words(self) -> str:
        """As it was asked for, with its year."""
        return f"{self.name}:{self.year}"

    def tiles(self, boxes: tuple[Bounds, ...]) -> tuple[Tile, ...]:
        """The files that hold a place.

        Args:
            boxes: west, south, east, north of the place, degrees, west < east.

        Raises:
            ConfigError: the product does not reach there.
        """
        west, south, east, north = self.product.coverage
        inside = [
            (max(w, west), max(s, south), min(e, east), min(n, north))
            for w, s, e, n in boxes
            if w < east and e > west and s < north and n > south
        ]
        if not inside:
            place = ",".join(f"{value:.2f}" for value in boxes[0])
            raise ConfigError(
                f"{self.product.title} covers {west:g},{south:g},{east:g},{north:g}, the scene is in "
                f"{place} (west,south,east,north); name labels that cover it"
            )
        return tuple(self._tile(name) for name in dict.fromkeys(self._names(inside)))

    def _names(self, boxes: list[Bounds]) -> Iterator[str]:
        assert self.product.tiling is not None, "products to export were refused"
        for box in boxes:
            yield from self.product.tiling.names(box)

    def _tile(self, name: str) -> Tile:
        edition = self.product.years[self.year]
        source = edition.file.replace("{tile}", name)
        return Tile(name, self.name, self.year, source, edition.band, edition.asset)

    def credit(self, tile: Tile) -> Credit:
        """Whose a tile is."""
        product = self.product
        attribution = product.attribution.replace("{year}", str(self.year))
        source = tile.source if tile.fetched else product.page
        return Credit(product.title, self.year, product.licence, attribution, source)


def product_names() -> tuple[str, ...]:
    """Names of the catalogue."""
    return config_names("labels")


def product_asked_for(named: Path | str) -> Edited | None:
    """What `NAME`, `NAME:YEAR` or a product's own `FILE.toml[:YEAR]` stands for; None: it is a raster file.

    Raises:
        ConfigError: there is no such name or year, or the product has no files to fetch.
    """
    text = str(named)
    name, _, year = text.partition(":") if re.search(r":\d+$", text) else (text, "", "")
    own = name.endswith(".toml")
    if not own and (Path(text).exists() or not _BARE.fullmatch(name)):
        return None
    if not own and name not in product_names():
        raise ConfigError(
            f"there is no file and no land-cover product {name!r}; known by name: "
            f"{', '.join(product_names())}; give one of these (worldcover:2021 for one year) or a raster file"
        )
    path = Path(name) if own else config_path("labels", f"{name}.toml")
    product = _parse(read_toml(path, "file of a land-cover product"), path)
    return _edition(path.stem, product, year)


def _parse(data: dict[str, object], path: Path) -> LabelProduct:
    try:
        return LabelProduct.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            f"land-cover product {path} is not valid: {problems_of(error, LabelProduct)}; mend it there"
        ) from None


def _edition(name: str, product: LabelProduct, year: str) -> Edited:
    if product.export is not None:
        raise ConfigError(
            f"{product.title} is published as no files that could be fetched; export {product.export} from "
            f"{product.page}, and give --labels FILE.tif with the legend {product.legend}"
        )
    wanted = int(year) if year else max(product.years)
    if wanted not in product.years:
        known = ", ".join(map(str, sorted(product.years)))
        raise ConfigError(
            f"{product.title} has no year {wanted}; it has {known}; give --labels {name}:{max(product.years)}"
        )
    return Edited(name, product, wanted)
