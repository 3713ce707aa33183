"""Label rasters of an image, also those that are asked for by the name of their product."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from odc.geo.geobox import GeoBox

from citycover.classes.raster import ClassRaster
from citycover.errors import ConfigError
from citycover.evidence.catalogue import Credit, product_asked_for
from citycover.evidence.fetch import find_labels
from citycover.scene.file import describe_file
from citycover.scene.trust import Trust
from citycover_models.data.pairs import ImageAndLabels


@dataclass(frozen=True, slots=True)
class FoundLabels:
    """A label raster of an image, and what its numbers mean."""

    path: str
    legend: str
    """Name or file of its legend."""
    credit: Credit | None = None
    """Of a product that was asked for by name."""

    def time(self, trust: Trust) -> date | None:
        """When the labels are from; None: they do not say it."""
        if self.credit is not None:
            return date(self.credit.year, 7, 1)
        info = describe_file(self.path, trust)
        return None if info.time is None else datetime.fromisoformat(info.time).date()


def found_labels(item: ImageAndLabels, legends: Sequence[str], grid: GeoBox) -> tuple[FoundLabels, ...]:
    """The label rasters that lie on an image, in the order they were named in.

    Args:
        item: an image and what its labels are called.
        legends: of each of them, or one for all; empty: they are products by name, and know theirs.
        grid: of the image.

    Raises:
        ConfigError: a name is not known, or legends are too few or too many.
        MachineError: a product cannot be fetched.
    """
    legends = legends or legends_by_name(item.labels)
    if len(legends) not in {1, len(item.labels)}:
        raise ConfigError(
            f"{item.image} has {len(item.labels)} label rasters for {len(legends)} legends; give one "
            "--legend for all, or one for each --labels in the same order"
        )
    each = list(legends) * len(item.labels) if len(legends) == 1 else legends
    return tuple(
        found
        for named, legend in zip(item.labels, each, strict=True)
        for found in _found(named, legend, grid)
    )


def legends_by_name(labels: Sequence[str], option: str = "--legend") -> list[str]:
    """The legends of products by name.

    Args:
        labels: names of products.
        option: by which the user gives a legend.

    Raises:
        ConfigError: one is a file, which does not say what its numbers mean.
    """
    products = [product_asked_for(named) for named in labels]
    legends = [edited.product.legend for edited in products if edited is not None]
    if len(legends) < len(products):
        raise ConfigError(
            f"labels need {option}: the name of a built-in legend, or a .toml file; one that does not fit "
            "their numbers is refused with the names of those that do"
        )
    return legends


def _found(named: str, legend: str, grid: GeoBox) -> Iterator[FoundLabels]:
    if product_asked_for(named) is None:
        yield FoundLabels(named, legend)
        return
    for file in find_labels(named, grid):
        with ClassRaster(file.path, "labels") as raster:
            beside = raster.part_under(grid) is None
        if not beside:
            yield FoundLabels(str(file.path), legend, file.credit)
