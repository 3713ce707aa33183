"""Which tiles the mosaic of a region has at this moment, and which sheets the windows of each look at.

A tile that no sheet shows is none; of the others a change of any sheet that its windows look at is a change.
A sheet that cannot be read shows nobody knows what: it stands among the scenes by itself, and fails; tiles
that were made of it fail with it, so that they keep the product that they have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from citycover.errors import CitycoverError, ConfigError, SceneError
from citycover.geometry.grid import crs_text
from citycover.geometry.tiles import Tile, tiles_in
from citycover.geometry.window import Window
from citycover.job.job import windows_of_tile
from citycover.model.joint import read_map_model
from citycover.region.bucket import region_at
from citycover.region.config import Region, check_name
from citycover.region.record import mosaic_of, read_record_of
from citycover.region.scenes import RegionScene, files_of, rasters_of
from citycover.scene.area import read_area
from citycover.scene.assemble import read_lattice
from citycover.scene.file import FileInfo, describe_files
from citycover.scene.lattice import lattice_of, place_on


@dataclass(frozen=True, slots=True)
class _Sheets:
    """Files of a mosaic, in the order in which they count."""

    lattice: GeoBox
    files: Sequence[str]
    places: Mapping[str, Sequence[Window]]
    """Of each, the pixels of the lattice that it reaches into."""
    problems: Mapping[str, str]
    """Of those whose place is not known: why."""

    def tiles(self, size: int, before: int = 0, after: int = 0) -> dict[Tile, set[str]]:
        """Tiles from which sheets are seen, and which, looking so many pixels beyond their sides."""
        found: dict[Tile, set[str]] = {}
        for path, places in self.places.items():
            for place in places:
                height, width = place.height + before + after, place.width + before + after
                from_where = Window(place.row - after, place.col - after, height, width)
                for tile in tiles_in(from_where, size, self.lattice):
                    found.setdefault(tile, set()).add(path)
        return found


def find_tiles(region: Region) -> tuple[RegionScene, ...]:
    """The tiles of a region, by name, and each sheet that cannot be read.

    Raises:
        ConfigError: there is no file at all, or no tile.
        CitycoverError: the region file names what is not there.
    """
    assert region.mosaic is not None, "it is asked for"
    assert region.model is not None, "a mosaic has one"
    sheets, size = _look(region), region.mosaic.tile
    card = read_map_model(region.model, region.tta).card
    one = Tile(size, 0, 0)
    at, seen = one.window(sheets.lattice), windows_of_tile(one, sheets.lattice, card, region.engine)
    files = sheets.tiles(size, at.row - seen.row, seen.row_end - at.row_end)
    shown = set(sheets.tiles(size))
    for tile, path in _remembered(region, sheets, size):
        shown.add(tile)
        files.setdefault(tile, set()).add(path)
    inside = _inside(shown, region, sheets)
    if not inside and not sheets.problems:
        raise ConfigError(
            f"no sheet lies inside {region.where.aoi}; check its CRS and axis order, or leave out where.aoi"
        )
    order = {path: number for number, path in enumerate(sheets.files)}
    tiles = [
        RegionScene(tile.name, tuple(sorted(files[tile], key=order.__getitem__)), tile) for tile in inside
    ]
    return tuple(sorted((*tiles, *_broken(sheets.problems)), key=lambda scene: scene.name))


def _look(region: Region) -> _Sheets:
    """Where sheets lie, by their metadata."""
    asked = region.request((), region.out).imagery
    lattice = lattice_of(asked.laying, read_lattice(asked.laying, asked.trust))
    files = rasters_of(dict.fromkeys(f for source in region.scenes for f in files_of(source, region.out)))
    if not files:
        patterns = ", ".join(file for source in region.scenes for file in source.files)
        raise ConfigError(f"no file matches {patterns}; check files under [[scenes]]")
    places: dict[str, list[Window]] = {}
    problems: dict[str, str] = {}
    for path in files:
        try:
            places[path] = [_place(info, lattice) for info in describe_files([path], asked.trust)]
        except CitycoverError as error:
            problems[path] = str(error)
    return _Sheets(lattice, files, places, problems)


def _place(info: FileInfo, lattice: GeoBox) -> Window:
    if info.grid is None:
        raise SceneError(str(info.obstacle))
    if info.grid.crs is None:
        raise SceneError(f"{info.path} has no CRS: its place in the mosaic is not known; give it one")
    if (place := place_on(lattice, info.grid)) is None:
        raise SceneError(
            f"{info.path} lies where {crs_text(lattice)}, the CRS of the mosaic, ends; leave it out, or "
            "choose another grid"
        )
    return place


def _remembered(region: Region, sheets: _Sheets, size: int) -> Iterator[tuple[Tile, str]]:
    """Tiles that were made of sheets whose place is no more known, and those."""
    folder, laid = region_at(region.out), mosaic_of(region)
    for name in folder.names("scenes") if sheets.problems else ():
        tile, record = Tile.named(name, size), read_record_of(folder.record_of(name))
        if tile is not None and record is not None and record.map.get("mosaic") == laid:
            yield from ((tile, file) for file in record.files if file in sheets.problems)


def _inside(tiles: Collection[Tile], region: Region, sheets: _Sheets) -> Collection[Tile]:
    """Tiles that share a place with the polygons of the region, if it has any."""
    if region.where.aoi is None or not tiles:
        return tiles
    windows = {tile: tile.window(sheets.lattice) for tile in tiles}
    row, col = min(w.row for w in windows.values()), min(w.col for w in windows.values())
    height = max(w.row_end for w in windows.values()) - row
    width = max(w.col_end for w in windows.values()) - col
    transform = sheets.lattice.transform
    corner = transform * Affine.translation(col, row)
    area = read_area(region.where.aoi, GeoBox((height, width), corner, sheets.lattice.crs)).geometry
    return [
        tile
        for tile, w in windows.items()
        if shapely.box(*(transform * (w.col, w.row_end)), *(transform * (w.col_end, w.row))).intersects(area)
    ]


def _broken(problems: Mapping[str, str]) -> Iterator[RegionScene]:
    """Sheets that cannot be read, each as a scene that fails; those of one name as one."""
    named: dict[str, list[str]] = {}
    for path in problems:
        try:
            named.setdefault(check_name(Path(path).stem), []).append(path)
        except ValueError as error:
            raise ConfigError(f"the sheet {path}: {error}") from None
    for name, files in named.items():
        yield RegionScene(name, tuple(files), problem="; ".join(problems[file] for file in files))
