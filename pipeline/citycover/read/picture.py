"""A small picture of a scene, for previews: overviews where files have them, a central part where not."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from citycover.errors import SceneError
from citycover.files.gdal import open_known, open_unseen, overview_for, scene_options
from citycover.geometry.positions import Positions, reach
from citycover.geometry.window import Window
from citycover.read.composite import Kind, compose
from citycover.read.promise import kept
from citycover.read.small import SHOWN_BYTES, decoded_bytes, some_sheets
from citycover.scene.scene import BandSource, Scene, SceneGroup, Sheet

_LEAST_CACHE = 8 << 20

_LEAST_ROWS = 512
"""Of a file that are read at once; blocks of a VRT are lower than those of its files."""

_CENTRE = 4096
"""Side of the part that is shown of files that are larger."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decimated image."""

    values: NDArray[np.float32]
    """(y, x, 3) digital numbers: red, green, blue where the scene names them."""
    valid: NDArray[np.bool_]
    """(y, x)."""
    part: Window
    """Pixels of the scene that are shown."""


def visible_bands(bands: Sequence[BandSource]) -> list[int]:
    """Places of three bands to show: by name, else the first three, a single one thrice."""
    by_name = {band.name: place for place, band in enumerate(bands)}
    for names in (("red", "green", "blue"), ("B04", "B03", "B02")):
        if all(name in by_name for name in names):
            return [by_name[name] for name in names]
    return [min(k, len(bands) - 1) for k in range(3)]


def read_picture(scene: Scene, part: Window, longest: int = 1000) -> Picture:
    """Read a decimated image of a part of the finest band group.

    What cannot be read is shown as invalid: a picture never fails a run.
    """
    group = scene.groups[0]
    with rasterio.Env(**scene_options(group.paths), GDAL_CACHEMAX=_cache_for(group)):
        return _read_picture(group, part, longest)


def _cache_for(group: SceneGroup) -> int:
    """Bytes of two rows of blocks: a decimated read goes line by line, and would decode each anew."""
    pixel = np.dtype(group.dtype).itemsize * len(group.bands)
    return int(min(_LEAST_CACHE + 2 * group.block[0] * group.native.shape[1] * pixel, SHOWN_BYTES))


def _read_picture(group: SceneGroup, part: Window, longest: int) -> Picture:
    places = visible_bands(group.bands)
    shown = part if _cheap(group, places, part, longest) else _centre(part)
    factor = max(1.0, max(shown.height, shown.width) / longest)
    shape = (max(1, round(shown.height / factor)), max(1, round(shown.width / factor)))
    corner = Affine.translation(shown.col, shown.row)
    pixel = Affine.scale(shown.width / shape[1], shown.height / shape[0])
    grid = GeoBox(shape, group.grid.transform * corner * pixel, group.grid.crs)
    if group.composite not in {"median", "best"}:
        return _first_seen(group.sheets, places, grid, shown)
    dates = [_first_seen(date.sheets, places, grid, shown) for date in group.dates]
    kind: Kind = "median" if group.composite == "median" else "best"
    values, valid = compose(kind, np.stack([d.values for d in dates]), np.stack([d.valid for d in dates]))
    return Picture(np.where(valid[..., None], values, 0).astype(np.float32), valid, shown)


def _first_seen(sheets: Sequence[Sheet], places: list[int], grid: GeoBox, shown: Window) -> Picture:
    """What sheets show on a grid, the first of them most."""
    height, width = grid.shape
    picture = Picture(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.bool_), shown)
    for sheet in sheets:
        with contextlib.suppress(rasterio.errors.RasterioError, SceneError):
            _add_sheet(sheet, places, grid, picture)
    return picture


def _cheap(group: SceneGroup, places: list[int], part: Window, longest: int) -> bool:
    factor = max(1.0, max(part.height, part.width) / longest)
    share = part.pixels / (group.shape[0] * group.shape[1])
    cost = 0.0
    sheets = some_sheets(group, group.grid[part.slices])
    for sheet in sheets:
        for band in {sheet.bands[place] for place in places}:
            try:
                with open_band(band) as dataset:
                    pixels = round(dataset.height * dataset.width * share)
                    cost += decoded_bytes(dataset, 1, pixels, factor) / len(sheets) * len(group.sheets)
            except rasterio.errors.RasterioError:
                continue  # nothing of it will be shown
    return cost <= SHOWN_BYTES


def _centre(part: Window) -> Window:
    row = part.row + max(0, part.height - _CENTRE) // 2
    col = part.col + max(0, part.width - _CENTRE) // 2
    return Window(row, col, min(_CENTRE, part.height), min(_CENTRE, part.width))


def _add_sheet(sheet: Sheet, places: list[int], grid: GeoBox, picture: Picture) -> None:
    """Put the nearest pixels of a sheet where no earlier one is seen."""
    at = reach(sheet.grid, grid)
    at = at and at.clip(Window(0, 0, *picture.valid.shape))
    if not at or picture.valid[at.slices].all():
        return
    grids: dict[GeoBox, list[int]] = {}
    for place in dict.fromkeys(places):
        grids.setdefault(sheet.bands[place].lies or sheet.grid, []).append(place)
    planes: dict[int, _Plane] = {}
    for of, those in grids.items():
        planes |= _sampled({place: sheet.bands[place] for place in those}, of, grid, at)
    if len(planes) < len(set(places)):
        return
    new = ~picture.valid[at.slices]
    for _, seen in planes.values():
        new &= seen
    for k, place in enumerate(places):
        np.copyto(picture.values[(*at.slices, k)], planes[place][0], where=new)
    picture.valid[at.slices] |= new


_Plane = tuple[NDArray[np.float32], NDArray[np.bool_]]
"""(y, x) numbers, and where they were observed."""


def _sampled(bands: Mapping[int, BandSource], of: GeoBox, grid: GeoBox, at: Window) -> dict[int, _Plane]:
    """Nearest pixels of bands on a grid, at pixels of the picture's; nothing where they do not lie there."""
    positions = Positions(of, grid)
    own = reach(grid[at.slices], of)
    own = own and own.clip(Window(0, 0, *of.shape))
    if not own:
        return {}
    down, right = (max(1.0, scale) for scale in positions.scale)
    shape = (max(1, round(own.height / down)), max(1, round(own.width / right)))
    rows, cols = positions.at(at)
    with np.errstate(invalid="ignore"):  # NaN, where there is no way, is outside
        row = np.floor((rows - own.row) * (shape[0] / own.height) + 1e-6)
        col = np.floor((cols - own.col) * (shape[1] / own.width) + 1e-6)
        inside = (row >= 0) & (row < shape[0]) & (col >= 0) & (col < shape[1])
    index = np.where(inside, row, 0).astype(np.intp), np.where(inside, col, 0).astype(np.intp)
    read: dict[int, _Plane] = {}
    for path in dict.fromkeys(band.path for band in bands.values()):
        read |= _read_file({k: band for k, band in bands.items() if band.path == path}, own, shape)
    return {place: (values[index], seen[index] & inside) for place, (values, seen) in read.items()}


def open_band(band: BandSource) -> Any:
    """The file of a band."""
    return open_unseen(band.path) if band.promise else open_known(band.path)


def _read_file(bands: Mapping[int, BandSource], shown: Window, shape: tuple[int, int]) -> dict[int, _Plane]:
    """(y, x) nearest pixels of a window of one file, and where they were observed.

    They are picked from whole rows of blocks, of the coarsest overview that is fine enough. GDAL's own
    decimated read goes band by band and line by line, and decodes each block for every one of them where its
    cache is small, or others read beside.
    """
    planes = {place: (np.empty(shape, np.float32), np.empty(shape, np.bool_)) for place in bands}
    with ExitStack() as stack:
        dataset = stack.enter_context(open_band(next(iter(bands.values()))))
        known = {place: kept(dataset, [band])[0] for place, band in bands.items()}
        step = min(shown.height / shape[0], shown.width / shape[1])
        coarse = stack.enter_context(_overview(dataset, step))
        rows = _picked(shown.row, shown.height, shape[0], coarse.height / dataset.height)
        cols = _picked(shown.col, shown.width, shape[1], coarse.width / dataset.width)
        tall = max(height for height, _ in coarse.block_shapes)
        if tall >= step:  # of each block something is needed
            tall *= max(1, _LEAST_ROWS // tall)
        starts = np.flatnonzero(np.diff(rows // tall, prepend=-1))
        for begin, end in itertools.pairwise([*starts.tolist(), len(rows)]):
            for place, plane in _read_rows(coarse, known, rows[begin:end], cols).items():
                planes[place][0][begin:end], planes[place][1][begin:end] = plane
    return planes


def _overview(dataset: Any, scale: float) -> Any:
    """The coarsest overview of a file whose pixels are no longer than `scale`; if there is none, the file."""
    level, _ = overview_for(dataset, scale)
    if level is not None:
        return rasterio.open(dataset.name, driver=dataset.driver, overview_level=level)
    return contextlib.nullcontext(dataset)


def _picked(first: int, length: int, count: int, scale: float) -> NDArray[np.intp]:
    """Rows or columns, of which there are `scale` to a pixel, that the centres of `count` pixels lie in."""
    centres = first + (np.arange(count) + 0.5) * (length / count)
    return np.asarray(np.floor(centres * scale + 1e-9), np.intp)


def _read_rows(
    dataset: Any, bands: Mapping[int, BandSource], rows: NDArray[np.intp], cols: NDArray[np.intp]
) -> dict[int, _Plane]:
    """(y, x) pixels where rows and columns, both rising, cross."""
    window = RasterioWindow(cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1)
    cross = np.ix_(rows - rows[0], cols - cols[0])
    alphas = [i for i, colour in enumerate(dataset.colorinterp, 1) if colour is ColorInterp.alpha]
    indexes = list(dict.fromkeys([*(band.index for band in bands.values()), *alphas]))
    with np.errstate(over="ignore"):
        read = {
            index: plane[cross].astype(np.float32)
            for index, plane in zip(indexes, dataset.read(indexes, window=window), strict=True)
        }
    planes = {}
    for place, band in bands.items():
        values = read[band.index]
        seen = np.isfinite(values)
        if band.validity == "nodata" and band.nodata is not None and np.isfinite(band.nodata):
            seen &= values != np.float32(band.nodata)
        elif band.validity == "alpha":
            for index in alphas:
                seen &= read[index] > 0
        elif band.validity == "mask":
            seen &= dataset.read_masks(band.index, window=window)[cross] > 0
        planes[place] = np.nan_to_num(values), seen
    return planes
