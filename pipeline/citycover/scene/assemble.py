"""From files to a Scene: choose and order the bands, sort them into groups, refuse what cannot be mapped.

`describe_files` reads metadata once; everything after it is plain data: files are sorted into sheets by place
(`mosaic.py`), bands of each are matched by name or number (`choose.py`), each card group gets bands of one
grid, and grids must nest; then the sheets are laid onto one grid. No pixel is read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from citycover.errors import SceneError
from citycover.geometry.grid import (
    grid_text,
    ground_sample_distance,
    nested_ratio,
    pixel_ground_size,
    resampled_grid,
    same_grid,
    same_place,
)
from citycover.geometry.positions import reach
from citycover.geometry.window import Window
from citycover.model.card import BandGroup, ModelCard
from citycover.model.kernel import Kernel
from citycover.scene.bands import SceneBand
from citycover.scene.choose import match_bands, pick_bands, rank_of
from citycover.scene.file import FileInfo, can_occur, describe_file, describe_files, lost_sources
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover.scene.masks import Masks, split_masks
from citycover.scene.measure import Measure, Numbers, conversion
from citycover.scene.mosaic import SheetGroups, lay_out, split_sheets, usual_kernel
from citycover.scene.scene import BandSource, Scene, SceneGroup, Sheet, Validity
from citycover.scene.trust import Trust

logger = logging.getLogger(__name__)

_PIXEL_TYPES = ("uint8", "uint16", "int16", "float32")

_GSD_SLACK = 0.01
"""Relative: map projections stretch by up to this, and no network notices it."""

_SQUARE_SLACK = 0.05
"""Relative difference of the sides of a pixel that still counts as square: less than networks are trained to
bear. Pixels in degrees are never square on the ground and are judged by the limits of the GSD alone."""


@dataclass(frozen=True, slots=True)
class _Band:
    """One band of the scene: its names, and the file that it lies in."""

    names: SceneBand
    info: FileInfo

    @property
    def dtype(self) -> str:
        return self.info.dtypes[self.names.index - 1]

    @property
    def measure(self) -> Measure | None:
        measures = self.info.measures
        return measures[self.names.index - 1] if measures else None

    @property
    def grid(self) -> GeoBox:
        assert self.info.grid is not None, "files with an obstacle were refused"
        return self.info.grid


def describe_scene(
    paths: Sequence[str | Path],
    card: ModelCard | None,
    *,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    measure: Measure | None = None,
    resample: bool = False,
    laying: Laying = Laying(),  # noqa: B008 - a value
    masking: Masking = Masking(),  # noqa: B008 - a value
    trust: Trust = Trust(),  # noqa: B008 - a value
) -> Scene:
    """Describe the scene that files hold, for a model or, without a card, as it is; warn of what is lost.

    Args:
        paths: raster files, folders of them, or what else `describe_files` takes. Several of one place hold
            one band or more each; those of other places are further sheets of the scene.
        card: what the model needs; None takes all bands in file order.
        bands: names or numbers (from 1, over all files of a sheet) in the order of the card's bands; None: by
            name.
        nodata: digital number of invalid pixels in every band, instead of the files' tags.
        measure: what numbers of all bands mean, instead of what the files say.
        resample: read at the card's GSD where the scene's lies outside the card's limits.
        laying: how sheets are laid out, where there are several.
        masking: which masks of clouds count.
        trust: which files the files may name in turn.

    Raises:
        SceneError: the files cannot be mapped, or not by this model; says what to do.
    """
    files, lattice = describe_files(paths, trust), read_lattice(laying, trust)
    scene = assemble_scene(
        files,
        card,
        bands=bands,
        nodata=nodata,
        measure=measure,
        resample=resample,
        laying=laying,
        masking=masking,
        lattice=lattice,
    )
    if lost := lost_sources(files):
        logger.warning(lost)
    return scene


def read_lattice(laying: Laying, trust: Trust) -> GeoBox | None:
    """The grid of the raster whose lattice is to be taken; None where none is named.

    Raises:
        SceneError: it has no grid.
    """
    if laying.grid is None or not Path(laying.grid).exists():
        return None
    try:
        info = describe_file(laying.grid, trust)
    except SceneError as error:
        raise SceneError(f"--grid: {error}") from None
    if info.grid is None:
        raise SceneError(f"--grid: {info.obstacle}")
    return info.grid


def fits(
    card: ModelCard,
    files: Sequence[FileInfo],
    *,
    bands: Sequence[str] | None = None,
    laying: Laying = Laying(),  # noqa: B008 - a value
    masking: Masking = Masking(),  # noqa: B008 - a value
    lattice: GeoBox | None = None,
) -> str | None:
    """Why a model cannot map files as they are; None where it can. Opens nothing."""
    try:
        assemble_scene(files, card, bands=bands, laying=laying, masking=masking, lattice=lattice)
    except SceneError as error:
        return str(error)
    return None


def answered(card: ModelCard, files: Sequence[FileInfo]) -> int:
    """How many bands of a card something in the files answers to."""
    scene = [band for info in files for band in info.bands]
    wanted = [entry for group in card.groups for entry in group.bands]
    return sum(any(rank_of(entry, band) is not None for band in scene) for entry in wanted)


def assemble_scene(
    files: Sequence[FileInfo],
    card: ModelCard | None,
    *,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    measure: Measure | None = None,
    resample: bool = False,
    laying: Laying = Laying(),  # noqa: B008 - a value
    masking: Masking = Masking(),  # noqa: B008 - a value
    lattice: GeoBox | None = None,
) -> Scene:
    """Make a scene of files that are described already; see `describe_scene`. Opens nothing."""
    for info in files:
        if info.obstacle:
            raise SceneError(info.obstacle)
    images, alone = split_masks(files, masking)
    masks = Masks(alone, masking)
    sheets = _sheets(images, card, bands, Numbers(nodata, measure), laying)
    sheets = [_masked(sheet, infos, masks) for sheet, infos in sheets]
    groups = lay_out([sheet for sheet, _ in sheets], laying, lattice)
    gsd, resampling = ground_sample_distance(groups[0].grid), None
    if card and (why := gsd_mismatch(groups[0].grid, card)):
        if not resample:
            raise SceneError(why)
        groups, resampling = _resample(groups, card)
        gsd = ground_sample_distance(groups[0].grid)
    used = [info for _, infos in sheets for info in infos]
    return Scene(
        groups=groups,
        gsd=gsd,
        time=max((sheet.time for sheet, _ in sheets if sheet.time), default=None),
        resampling=resampling,
        fingerprints=tuple(
            dict.fromkeys(f for info in used for f in ((info.path, info.size, info.mtime_ns), *info.beside))
        ),
    )


def _masked(sheet: SheetGroups, used: list[FileInfo], masks: Masks) -> tuple[SheetGroups, list[FileInfo]]:
    """A sheet with its masks, and the files that are used of it."""
    found = masks.of(used, sheet.groups[0].grid)
    groups = tuple(
        replace(group, sheets=tuple(replace(s, masks=found) for s in group.sheets)) for group in sheet.groups
    )
    return replace(sheet, groups=groups), [*used, *masks.files_of(found)]


def _sheets(
    files: Sequence[FileInfo],
    card: ModelCard | None,
    bands: Sequence[str] | None,
    numbers: Numbers,
    laying: Laying,
) -> list[tuple[SheetGroups, list[FileInfo]]]:
    """Each sheet, and the files that are used of it."""
    parts = split_sheets(files, stacked=laying.overlap is not None)
    found: list[tuple[SheetGroups, list[FileInfo]]] = []
    failed: list[tuple[str, SceneError]] = []
    for part in parts:
        try:
            found.append(_sheet(part, card, bands, numbers, laying))
        except SceneError as why:
            failed.append((part[0].name, why))
    if not failed:
        return found
    name, error = failed[0]
    if found:
        raise SceneError(
            f"{name} lies elsewhere than {found[0][0].name} and cannot be a sheet of the same scene: "
            f"{error}; or leave it out"
        )
    names = [{band.label for info in part for band in info.bands} for part in parts]
    if len(parts) == 1 or names[0] & names[1]:
        raise error
    return [_sheet(files, card, bands, numbers, laying)]  # bands that lie on grids of their own


def _sheet(
    files: Sequence[FileInfo],
    card: ModelCard | None,
    bands: Sequence[str] | None,
    numbers: Numbers,
    laying: Laying,
) -> tuple[SheetGroups, list[FileInfo]]:
    """The band groups of one sheet, and the files that they lie in."""
    everything = [_Band(names, info) for info in files for names in info.bands]
    chosen = _choose(everything, card, bands)
    for band in chosen:
        if band.dtype.startswith("complex"):
            raise SceneError(
                f"{band.info.path} holds complex numbers ({band.dtype}); a model needs real ones; "
                f"convert it first, for radar to intensity or amplitude"
            )
    if card:
        groups = _card_groups(chosen, card, numbers, laying.resampling)
    elif bands is not None:
        groups = (_named_group(chosen, numbers, laying.resampling),)
    else:
        groups = _grid_groups(chosen, numbers)
    used = list({band.info.path: band.info for band in chosen}.values())
    for info in files:
        if info not in used:
            _refuse_unused(info, used[0], {name for band in chosen for name in band.names.names})
    time = next((info.time for info in used if info.time), None)
    return SheetGroups(groups, time, used[0].name), used


def _refuse_unused(info: FileInfo, used: FileInfo, names: set[str]) -> None:
    """A file of other bands of the same place does no harm; anything else was meant to be mapped.

    Raises:
        SceneError: it is used for nothing, and nothing says that its bands are others.
    """
    assert info.grid is not None, "files with an obstacle were refused"
    assert used.grid is not None, "the same"
    own = {name for band in info.bands for name in band.names}
    if own and not own & names and same_place(info.grid, used.grid):
        return
    raise SceneError(
        f"no band of {info.name} is used, only of {used.name}; files of one place are bands of one scene; "
        f"leave it out, or, if both show the place at different times, say with --overlap which counts"
    )


def _choose(everything: Sequence[_Band], card: ModelCard | None, bands: Sequence[str] | None) -> list[_Band]:
    """The bands in the order of the card; without one those that are named, or all but alpha."""
    names = [band.names for band in everything]
    if card is None:
        if bands is None:
            return [b for b in everything if not b.names.alpha] or list(everything)
        return [everything[i] for i in pick_bands(bands, (), names, "")]
    wanted = [entry for group in card.groups for entry in group.bands]
    if len(wanted) > 1 and (palette := next((b.info for b in everything if _is_palette(b)), None)):
        raise SceneError(
            f"{palette.path} is a palette image: its numbers stand for colours; model '{card.name}' needs "
            f"bands; expand it first: gdal_translate -expand rgb in.tif out.tif"
        )
    places = pick_bands(bands, wanted, names, card.name) if bands else match_bands(card.name, wanted, names)
    return [everything[i] for i in places]


def _is_palette(band: _Band) -> bool:
    return band.info.colours[band.names.index - 1] == "palette"


def _card_groups(
    chosen: Sequence[_Band], card: ModelCard, numbers: Numbers, resampling: Kernel | None
) -> tuple[SceneGroup, ...]:
    """One group for each of the card's, each on one grid, the grids nested by the card's ratios.

    The first has the finest grid of its bands. What lies on another grid than its group's is warped onto it.
    """
    groups: list[SceneGroup] = []
    start = 0
    for wanted in card.groups:
        members = chosen[start : start + len(wanted.bands)]
        start += len(wanted.bands)
        grid = _grid_for(members, wanted.ratio, groups[0].grid if groups else None)
        group = _group(
            wanted.name, members, wanted.names, numbers,
            grid=grid, ratio=wanted.ratio, wanted=wanted, kernel=resampling or wanted.kernel,
        )  # fmt: skip
        groups.append(_typed(group, wanted, card))
    return tuple(groups)


def _grid_for(members: Sequence[_Band], ratio: int, finest: GeoBox | None) -> GeoBox:
    """The grid of a group: that of bands which nest in the finest as they should, else one that does."""
    if finest is None:
        return _finest(members)
    nested = next((band.grid for band in members if nested_ratio(finest, band.grid) == ratio), None)
    if nested is not None:
        return nested
    rows, cols = (math.ceil(n / ratio) for n in finest.shape)
    return GeoBox((rows, cols), finest.transform * Affine.scale(ratio), finest.crs)


def _finest(bands: Sequence[_Band]) -> GeoBox:
    """The grid of the finest band; of those as fine, of the first."""
    sizes = [band.info.gsd or math.inf for band in bands]
    return next(b.grid for b, size in zip(bands, sizes, strict=True) if size <= min(sizes) * (1 + _GSD_SLACK))


def _named_group(chosen: Sequence[_Band], numbers: Numbers, resampling: Kernel | None) -> SceneGroup:
    """Bands that the user put in an order: one group, on the finest grid among them."""
    grid = _finest(chosen)
    titles = [band.names.label for band in chosen]
    return _group("image", chosen, titles, numbers, grid=grid, ratio=1, kernel=resampling)


def _grid_groups(chosen: Sequence[_Band], numbers: Numbers) -> tuple[SceneGroup, ...]:
    """One group for each grid, the finest first: what can be said without a card."""
    shelves: list[list[_Band]] = []
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


def _apart(one: _Band, other: _Band) -> SceneError:
    return SceneError(
        f"{one.info.name} lies on {grid_text(one.grid)} and {other.info.name} on {grid_text(other.grid)}; "
        f"bands that are read together need one grid; warp one onto the "
        f"other, or, if they are two dates of a place, say with --overlap which counts"
    )


def _group(
    name: str,
    members: Sequence[_Band],
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


def _laid(source: BandSource, band: _Band, grid: GeoBox, kernel: Kernel | None) -> BandSource:
    """With the way onto the grid of its group, where it lies on another one."""
    if same_grid(grid, band.grid):
        return source
    place = reach(band.grid, grid)
    if place is None or not place.clip(Window(0, 0, *grid.shape)):
        raise SceneError(
            f"{band.info.name} lies on {grid_text(band.grid)}, which is elsewhere than {grid_text(grid)} of "
            f"the other bands; give files of one place"
        )
    return replace(source, lies=band.grid, kernel=kernel or usual_kernel(band.grid, grid))


def _measured(source: BandSource, band: _Band, asked: Measure | None, wanted: BandGroup | None) -> BandSource:
    """With the conversion of its numbers to those of the model."""
    gain, bias = conversion(band.info.name, band.measure, asked, wanted)
    return replace(source, gain=gain, bias=bias)


def converted_type(wanted: BandGroup | None) -> str:
    """What converted numbers are read as: no decimal is lost where the model takes any."""
    return "float32" if wanted is None or "float32" in wanted.dtypes else wanted.dtypes[0]


def _source(band: _Band, title: str, nodata: float | None, picked: set[tuple[str, int]]) -> BandSource:
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
    return BandSource(info.path, index, title, band.dtype, tag, validity, losses)


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
        f"model '{card.name}' needs {' or '.join(wanted.dtypes)}; choose a model made for such numbers, "
        f"or convert the file (gdal_translate -ot) if its values fit"
    )


def gsd_mismatch(grid: GeoBox, card: ModelCard) -> str | None:
    """Why pixels are too small, too large or too oblong for a model."""
    if card.gsd is None:
        return None
    low, high = card.gsd
    height, width = pixel_ground_size(grid)
    remedy = f"--resample reads it at {_native(card):g} m, or choose another model"
    if not (low * (1 - _GSD_SLACK) <= min(height, width) and max(height, width) <= high * (1 + _GSD_SLACK)):
        return (
            f"pixels of the scene are {width:.4g} x {height:.4g} m on the ground; "
            f"model '{card.name}' needs {low:g} to {high:g} m; {remedy}"
        )
    oblong = abs(height / width - 1) > _SQUARE_SLACK
    if oblong and not (grid.crs is not None and grid.crs.geographic):
        return (
            f"pixels of the scene are {width:.4g} m wide and {height:.4g} m high; "
            f"model '{card.name}' needs square ones; {remedy}"
        )
    return None


def _native(card: ModelCard) -> float:
    """The GSD that `--resample` reads at: the card's own, else the middle of its limits."""
    assert card.gsd is not None, "asked only where the card has limits"
    return card.native_gsd or math.sqrt(card.gsd[0] * card.gsd[1])


def _resample(groups: Sequence[SceneGroup], card: ModelCard) -> tuple[tuple[SceneGroup, ...], str]:
    """Lay all groups on a grid of the card's GSD and its multiples.

    Larger pixels are averages of all that they cover; smaller ones are interpolated.
    """
    fine_grid = groups[0].grid
    old = ground_sample_distance(fine_grid)
    target = _native(card)
    grid = resampled_grid(fine_grid, target)
    resized = []
    for group in groups:
        own = grid if group.ratio == 1 else _coarsened(grid, group.ratio)
        scale = target / old
        block = (max(1, round(group.block[0] / scale)), max(1, round(group.block[1] / scale)))
        resized.append(replace(group, grid=own, lattice=group.grid, block=block))
    return tuple(resized), "average" if target > old else "bilinear"


def _coarsened(grid: GeoBox, ratio: int) -> GeoBox:
    rows, cols = grid.shape
    shape = (math.ceil(rows / ratio), math.ceil(cols / ratio))
    return GeoBox(shape, grid.transform * Affine.scale(ratio), grid.crs)
