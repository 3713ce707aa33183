"""Band groups of one sheet: each on one grid, the finest first, what its numbers mean, where it is valid.

    bands, chosen and in order --card_groups, named_group, grid_groups--> groups whose grids nest

Metadata in, metadata out; nothing is opened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from odc.geo.geobox import GeoBox

from citycover.errors import SceneError
from citycover.geometry.grid import coarser_grid, grid_text, ground_sample_distance, nested_ratio, same_grid
from citycover.geometry.positions import reach
from citycover.geometry.window import Window
from citycover.model.card import BandGroup, ModelCard
from citycover.model.kernel import Kernel
from citycover.scene.bands import SceneBand
from citycover.scene.file import FileInfo
from citycover.scene.measure import Meaningless, Measure, Numbers, conversion
from citycover.scene.mosaic import kernel_onto
from citycover.scene.scene import BandSource, SceneGroup, Sheet, Validity
from citycover.scene.validity import can_occur

_PIXEL_TYPES = ("uint8", "uint16", "int16", "float32")

_AS_FINE = 0.01
"""Relative difference of two GSDs that count as one."""


@dataclass(frozen=True, slots=True)
class BandInFile:
    """One band of the scene: its names, and the file that it lies in."""

    names: SceneBand
    info: FileInfo

    @property
    def dtype(self) -> str:
        """Pixel type, as numpy calls it."""
        return self.info.dtypes[self.names.index - 1]

    @property
    def measure(self) -> Measure | Meaningless | None:
        """What its numbers mean, as far as its file says."""
        measures = self.info.measures
        return measures[self.names.index - 1] if measures else None

    @property
    def grid(self) -> GeoBox:
        """That of its file."""
        assert self.info.grid is not None, "files with an obstacle were refused"
        return self.info.grid


def card_groups(
    chosen: Sequence[BandInFile],
    card: ModelCard,
    there: Sequence[BandGroup],
    numbers: Numbers,
    resampling: Kernel | None,
) -> tuple[SceneGroup, ...]:
    """One group for each of the card's, each on one grid, the grids nested by the card's ratios.

    The first has the finest grid of its bands. What lies on another grid than its group's is warped onto it.

    Args:
        chosen: bands of all groups that the scene has, in order.
        card: of the model.
        there: those groups of the card.
        numbers: what the user says of them.
        resampling: how bands are warped; None: as the card says, or as usual.
    """
    groups: list[SceneGroup] = []
    start = 0
    for wanted in card.groups:
        if wanted not in there:
            grid = _grid_for((), wanted.ratio, groups[0].grid)
            groups.append(
                SceneGroup(
                    wanted.name, grid, (), converted_type(wanted), (256, 256), wanted.ratio,
                    filled=wanted.fills,
                )
            )  # fmt: skip
            continue
        members = chosen[start : start + len(wanted.bands)]
        start += len(wanted.bands)
        grid = _grid_for(members, wanted.ratio, groups[0].grid if groups else None)
        group = _group(
            wanted.name, members, wanted.names, numbers,
            grid=grid, ratio=wanted.ratio, wanted=wanted, kernel=resampling or wanted.kernel,
        )  # fmt: skip
        groups.append(_typed(group, wanted, card))
    return tuple(groups)


def _grid_for(members: Sequence[BandInFile], ratio: int, finest: GeoBox | None) -> GeoBox:
    """The grid of a group: that of bands which nest in the finest as they should, else one that does."""
    if finest is None:
        return _finest(members)
    nested = next((band.grid for band in members if nested_ratio(finest, band.grid) == ratio), None)
    return coarser_grid(finest, ratio) if nested is None else nested


def _finest(bands: Sequence[BandInFile]) -> GeoBox:
    """The grid of the finest band; of those as fine, of the first."""
    sizes = [band.info.gsd or math.inf for band in bands]
    return next(b.grid for b, size in zip(bands, sizes, strict=True) if size <= min(sizes) * (1 + _AS_FINE))


def named_group(chosen: Sequence[BandInFile], numbers: Numbers, resampling: Kernel | None) -> SceneGroup:
    """Bands that the user put in an order: one group, on the finest grid among them."""
    grid = _finest(chosen)
    titles = [band.names.label for band in chosen]
    return _group("image", chosen, titles, numbers, grid=grid, ratio=1, kernel=resampling)


def grid_groups(chosen: Sequence[BandInFile], numbers: Numbers) -> tuple[SceneGroup, ...]:
    """One group for each grid, the finest first: what can be said without a card."""
    shelves: list[list[BandInFile]] = []
    for band in chosen:
        shelf = next((s for s in shelves if same_grid(s[0].grid, band.grid)), None)
        if shelf is None:
            shelves.append([band])
        else:
            shelf.append(band)
    if len(shelves) > 1:
        shelves.sort(key=lambda s: ground_sample_distance(s[0].grid))
    groups = []
    for number, shelf in enumerate(shelves, 1):
        ratio = nested_ratio(shelves[0][0].grid, shelf[0].grid)
        if ratio is None:
            raise _apart(shelves[0][0], shelf[0])
        name = "image" if number == 1 else f"image{number}"
        titles = [b.names.label for b in shelf]
        groups.append(_group(name, shelf, titles, numbers, grid=shelf[0].grid, ratio=ratio))
    return tuple(groups)


def _apart(one: BandInFile, other: BandInFile) -> SceneError:
    return SceneError(
        f"{one.info.name} lies on {grid_text(one.grid)} and {other.info.name} on {grid_text(other.grid)}; "
        f"bands that are read together need one grid; warp one onto the "
        f"other, or, if they are two dates of a place, say with --overlap which counts, or with --composite "
        f"what becomes of both"
    )


def _group(
    name: str,
    members: Sequence[BandInFile],
    titles: Sequence[str],
    numbers: Numbers,
    *,
    grid: GeoBox,
    ratio: int,
    wanted: BandGroup | None = None,
    kernel: Kernel | None = None,
) -> SceneGroup:
    picked = {(b.info.path, b.names.index) for b in members}
    common = np.result_type(*(np.dtype(b.dtype) for b in members)).name
    bands = tuple(
        _laid(
            _measured(_source(b, title, numbers.nodata, picked), b, numbers.measure, wanted), b, grid, kernel
        )
        for b, title in zip(members, titles, strict=True)
    )
    if not all(band.plain for band in bands):
        common = converted_type(wanted)
    return SceneGroup(
        name=name,
        grid=grid,
        sheets=(Sheet(bands, grid, Window(0, 0, *grid.shape)),),
        dtype=common if common in _PIXEL_TYPES else "float32",
        block=(max(b.info.block[0] for b in members), max(b.info.block[1] for b in members)),
        ratio=ratio,
    )


def _laid(source: BandSource, band: BandInFile, grid: GeoBox, kernel: Kernel | None) -> BandSource:
    """With the way onto the grid of its group, where it lies on another one."""
    if same_grid(grid, band.grid):
        return source
    place = reach(band.grid, grid)
    if place is None or not place.clip(Window(0, 0, *grid.shape)):
        raise SceneError(
            f"{band.info.name} lies on {grid_text(band.grid)}, which is elsewhere than {grid_text(grid)} of "
            f"the other bands; give files of one place"
        )
    return replace(source, lies=band.grid, kernel=kernel_onto(grid, band.grid, kernel, band.info.name))


def _measured(
    source: BandSource, band: BandInFile, asked: Measure | None, wanted: BandGroup | None
) -> BandSource:
    """With the conversion of its numbers to those of the model."""
    gain, bias = conversion(band.info.name, band.measure, asked, wanted)
    has_unit = wanted is not None and wanted.unit != "dn"
    told = asked is not None or (has_unit and band.measure is not None)
    return replace(source, gain=gain, bias=bias, told=told)


def converted_type(wanted: BandGroup | None) -> str:
    """What converted numbers are read as: no decimal is lost where the model takes any."""
    return "float32" if wanted is None or "float32" in wanted.dtypes else wanted.dtypes[0]


def _source(band: BandInFile, title: str, nodata: float | None, picked: set[tuple[str, int]]) -> BandSource:
    """Where one band is read from and what makes its pixels invalid.

    A mask prevails over a nodata tag (as in GDAL); `--nodata` takes the place of the tag and adds to a mask
    or alpha. An alpha band that is itself among the chosen ones is data: many four-band files call their near
    infrared alpha.
    """
    info, index = band.info, band.names.index
    validity: Validity = info.masks[index - 1]
    tag = info.nodata[index - 1] if validity in {"nodata", "alpha"} else None
    if validity == "alpha" and alpha_is_data(info, picked):
        validity = "none"
    if nodata is not None:
        if not can_occur(nodata, band.dtype):
            raise SceneError(
                f"--nodata {nodata:g} cannot occur in {info.name}, whose pixels are {band.dtype}; "
                f"give the number that stands in the invalid pixels"
            )
        tag = nodata
    if validity == "none" and tag is not None:
        validity = "nodata"
    losses = tuple(dict.fromkeys(loss for where, loss in info.losses if where in {None, index}))
    promise = info.promise and replace(info.promise, settled=nodata is not None)
    return BandSource(info.path, index, title, band.dtype, tag, validity, losses, promise=promise)


def alpha_is_data(info: FileInfo, picked: set[tuple[str, int]]) -> bool:
    """True where the band tagged alpha is chosen as data, or known to be something else by its product."""
    alphas = [names for names, colour in zip(info.bands, info.colours, strict=True) if colour == "alpha"]
    return any((info.path, a.index) in picked or not a.alpha for a in alphas)


def _typed(group: SceneGroup, wanted: BandGroup, card: ModelCard) -> SceneGroup:
    """Check the pixel type; wide numbers are read as float32 where the card takes that."""
    if not all(band.plain for band in group.bands):
        return group
    types = {b.dtype for b in group.bands}
    common = np.result_type(*types).name
    if common in wanted.dtypes:
        return group
    if common not in _PIXEL_TYPES and "float32" in wanted.dtypes:
        return group  # int8, int32, uint32, int64, float64: numbers are kept, the type is not
    where = ", ".join(sorted({Path(b.path).name for b in group.bands}))
    raise SceneError(
        f"pixels of {where} are {' and '.join(sorted(types))}; "
        f"{card.called} needs {' or '.join(wanted.dtypes)}; choose a model made for such numbers, "
        f"or convert the file (gdal_translate -ot) if its values fit"
    )
