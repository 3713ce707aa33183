"""`holes.geojson`: the parts of the imagery that could not be read, as places on the Earth.

RFC 7946: longitude and latitude on WGS84, cut at 180 degrees. Where the grid is no place on the Earth the
features have no geometry, and rows and columns say it alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapely
from odc.geo.geobox import GeoBox

from citycover.files.atomic import write_atomic
from citycover.geometry.footprint import bbox_of, footprint
from citycover.geometry.window import Window
from citycover.read.reader import Hole

_DIGITS = 1e-7
"""Degrees: a centimetre."""


def write_holes(path: Path, holes: Sequence[Hole], grid: GeoBox) -> None:
    """Write the file, wholly or not at all.

    Args:
        path: of the file.
        holes: in pixels of `grid`, as they were met: one may be several that touch.
        grid: that of the scene.
    """
    whole = Window(0, 0, *(int(n) for n in grid.shape))
    inside = (
        Hole(part, hole.path, hole.reason) for hole in holes if (part := hole.window.clip(whole)) is not None
    )
    features = [_feature(hole, grid) for hole in joined(list(inside))]
    write_atomic(path, json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False))


def joined(holes: Sequence[Hole]) -> list[Hole]:
    """Holes of one cause that lie directly under each other as one: an image is read in strips."""
    found: list[Hole] = []
    for hole in sorted(holes, key=_order):
        above = found[-1] if found else None
        if above and _order(above)[:4] == _order(hole)[:4] and hole.window.row <= above.window.row_end:
            top = above.window
            end = max(top.row_end, hole.window.row_end)
            found[-1] = Hole(Window(top.row, top.col, end - top.row, top.width), hole.path, hole.reason)
        else:
            found.append(hole)
    return found


def _order(hole: Hole) -> tuple[str, str, int, int, int]:
    return hole.path, hole.reason, hole.window.col, hole.window.width, hole.window.row


def _feature(hole: Hole, grid: GeoBox) -> dict[str, Any]:
    window = hole.window
    outline = footprint(grid[window.slices])
    feature: dict[str, Any] = {"type": "Feature", "geometry": None}
    if outline is not None:
        feature["bbox"] = list(bbox_of(outline))
        feature["geometry"] = shapely.geometry.mapping(shapely.simplify(outline, _DIGITS))
    rows = {"row": window.row, "col": window.col, "height": window.height, "width": window.width}
    return feature | {"properties": {"path": hole.path, "reason": hole.reason, **rows}}
