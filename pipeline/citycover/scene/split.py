"""Which files are one sheet: those of the same place are its bands, unless they have the same bands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from citycover.geometry.grid import same_place
from citycover.scene.file import FileInfo


def split_sheets(files: Sequence[FileInfo], *, stacked: bool) -> list[list[FileInfo]]:
    """The files of each sheet, in the order of its first file.

    Args:
        files: all of them have grids.
        stacked: files of the same place that have the same bands are sheets that lie on each other; else
            they are one sheet, whose bands are in doubt.
    """
    places = _places(files)
    return [sheet for place in places for sheet in (_unstacked(place) if stacked else [place])]


def _places(files: Sequence[FileInfo]) -> list[list[FileInfo]]:
    """Files whose edges coincide to a pixel, together."""
    if len(files) == 1:
        return [list(files)]
    bounds = np.array([_grid(info).boundingbox.bbox for info in files])
    tree = shapely.STRtree(shapely.box(*bounds.T))
    place_of: dict[int, list[FileInfo]] = {}
    places: list[list[FileInfo]] = []
    for number, info in enumerate(files):
        near = sorted(tree.query(shapely.box(*bounds[number])).tolist())
        known = (place_of[n] for n in near if n < number and same_place(_grid(files[n]), _grid(info)))
        place = next(known, None)
        if place is None:
            place = []
            places.append(place)
        place.append(info)
        place_of[number] = place
    return places


def _unstacked(place: Sequence[FileInfo]) -> Iterator[list[FileInfo]]:
    """Files of one place as sheets, none of which has a band twice."""
    sheets: list[tuple[set[str], list[FileInfo]]] = []
    for info in place:
        own = {band.label for band in info.bands}
        names, sheet = next((s for s in sheets if not s[0] & own), (None, None))
        if names is None or sheet is None:
            names, sheet = set(), []
            sheets.append((names, sheet))
        names |= own
        sheet.append(info)
    yield from (sheet for _, sheet in sheets)


def _grid(info: FileInfo) -> GeoBox:
    assert info.grid is not None, "files with an obstacle were refused"
    return info.grid
