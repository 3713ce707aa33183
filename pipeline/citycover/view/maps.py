"""What the page shows: the maps of the folders that were named, oldest first."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import rasterio
from rasterio.errors import RasterioError

from citycover.derive.source import SourceMap, check_map_legend, open_source
from citycover.errors import ConfigError
from citycover.files.folders import is_zarr
from citycover.files.gdal import brief_reason, open_raster, options_for
from citycover.files.identity import FileStamp
from citycover.files.remote import Place, RemotePath, place_of, tag_of
from citycover.files.zipped import zipped
from citycover.geometry.footprint import degrees_of
from citycover.geometry.grid import Bounds
from citycover.plan.layers import CLASSES, LAYERS, Layer
from citycover.product.names import SIGN
from citycover.scene.file import check_class_file
from citycover.scene.trust import Trust
from citycover.view.mercator import LIMIT, native_level
from citycover.view.pixels import least_level

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShownMap:
    """A map that can be shown."""

    name: str
    """Of its folder, or of its file."""
    source: SourceMap
    layers: tuple[Layer, ...]
    """Those that it has, classes first."""
    bounds: Bounds
    """Degrees; east lies beyond 180 where the map crosses it."""
    native: int
    """Level of web maps as fine as the map."""
    least: int
    """First level at which it is shown."""

    @property
    def time(self) -> str | None:
        """When the imagery was taken, ISO 8601."""
        return self.source.record.given.time if self.source.record else None

    @property
    def channels(self) -> tuple[tuple[int, str], ...]:
        """Id and name of each band of layers that have one for each class of the network."""
        if self.source.record is None:
            return ()
        card = self.source.record.card
        return tuple(zip(card.channels, card.channel_names, strict=True))

    def path(self, layer: Layer) -> Place:
        """Of the raster of a layer."""
        return self.source.path if layer is CLASSES else self.source.path.with_name(layer.file)

    @property
    def edition(self) -> str:
        """Another one after the file was written anew: tiles of the old one are not shown for it."""
        path = self.source.path
        if isinstance(path, RemotePath):
            return hashlib.sha256(tag_of(str(path)).encode()).hexdigest()[:12]
        inside = zipped(str(path))
        stamp = FileStamp.of(inside.archive if inside else path)
        return format(stamp.mtime_ns if stamp else 0, "x")


def find_maps(
    paths: Sequence[str | Place],
    map_legend: str | None = None,
    trust: Trust = Trust(),  # noqa: B008 - a value
) -> tuple[ShownMap, ...]:
    """The maps in folders: products, folders that hold some, or class rasters with a legend.

    Args:
        paths: what was named.
        map_legend: of class rasters.
        trust: which files they may name in turn.

    Raises:
        ConfigError: there is none, one that was named is not whole, or lies where web maps show nothing.
    """
    found = [shown for path in paths for shown in _maps_at(place_of(path), map_legend, trust)]
    check_map_legend(map_legend, *(shown.source for shown in found))
    return tuple(sorted(found, key=lambda shown: (shown.time or "", shown.name)))


def _maps_at(path: Place, map_legend: str | None, trust: Trust) -> Iterator[ShownMap]:
    if not path.is_dir() or _is_product(path) or is_zarr(path):
        yield _shown(path, map_legend, trust)
        return
    inner = [child for child in _folders_in(path) if _is_product(child)]
    found, problems = 0, []
    for child in inner:
        try:
            shown = _shown(child, map_legend, trust)
        except ConfigError as error:
            logger.warning("left out: %s", error)
            problems.append(error)
            continue
        found += 1
        yield shown
    if problems and not found:
        raise problems[0]
    if not found:
        raise ConfigError(
            f"{path} holds no product, and neither does a folder in it; give a folder that `citycover map` "
            "wrote, or one that holds such folders"
        )


def _folders_in(folder: Place) -> Sequence[Place]:
    """Folders that lie in one, by name."""
    if isinstance(folder, RemotePath):
        return [folder / name for name in sorted({key.split("/")[0] for key in folder.below() if "/" in key})]
    return sorted(child for child in folder.iterdir() if child.is_dir())


def _is_product(folder: Place) -> bool:
    """Whether it is one, or what is left of one."""
    return any((folder / name).is_file() for name in ("run.json", SIGN, CLASSES.file))


def _shown(path: Place, map_legend: str | None, trust: Trust) -> ShownMap:
    source = open_source(path, map_legend, trust)
    bounds = degrees_of(source.grid)
    if bounds is None:
        raise ConfigError(
            f"{path} is no place on the Earth (a local grid, or another body), so it cannot be laid on a "
            "web map; look at its report.html, or write the true CRS into its rasters (gdal_edit.py -a_srs "
            "EPSG:...)"
        )
    west, south, east, north = bounds
    if south >= LIMIT or north <= -LIMIT:
        raise ConfigError(
            f"{path} lies beyond {LIMIT:.0f} degrees, where web maps end; look at its report.html"
        )
    native = native_level(source.grid, min(max((south + north) / 2, -LIMIT), LIMIT))
    layers = tuple(
        layer for layer in LAYERS
        if layer is CLASSES or (source.record is not None and source.path.with_name(layer.file).is_file())
    )  # fmt: skip
    for layer in layers:
        if layer is not CLASSES:  # which was looked at when the map was opened
            check_class_file(source.path.with_name(layer.file), "layer", trust)
    try:
        with rasterio.Env(**options_for(source.path)), open_raster(source.path) as dataset:
            least = least_level(dataset, native)
    except RasterioError as error:
        raise ConfigError(f"{source.path} cannot be opened: {brief_reason(error)}") from None
    east = east + 360 if east < west else east
    name = source.path.parent.name if source.record is not None else path.name
    return ShownMap(name, source, layers, (west, south, east, north), native, least)
