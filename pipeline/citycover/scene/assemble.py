"""From files to a Scene: choose and order the bands, sort them into groups, refuse what cannot be mapped.

`describe_files` reads metadata once; everything after it is plain data: files are sorted into sheets by place
(`split.py`), bands of each are matched by name or number (`choose.py`), each card group gets bands of one
grid (`groups.py`), and grids must nest; then the sheets are laid onto one grid. No pixel is read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from odc.geo.geobox import GeoBox

from citycover.errors import LayoutError, SceneError
from citycover.files.folders import undated
from citycover.geometry.grid import (
    ground_sample_distance,
    same_place,
)
from citycover.model.card import BandGroup, ModelCard
from citycover.scene.choose import groups_there, match_bands, pick_bands, rank_of
from citycover.scene.file import FileInfo, describe_file, describe_files, lost_sources
from citycover.scene.groups import BandInFile, card_groups, grid_groups, named_group
from citycover.scene.gsd import gsd_mismatch, resample_groups
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover.scene.masks import Masks, split_masks
from citycover.scene.measure import Measure, Numbers
from citycover.scene.mosaic import SheetGroups, lay_out
from citycover.scene.parts import holder_of
from citycover.scene.scene import Scene
from citycover.scene.split import split_sheets
from citycover.scene.trust import Trust
from citycover.scene.when import day_of

logger = logging.getLogger(__name__)


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
        LayoutError: it has no grid.
    """
    if laying.grid is None or not Path(laying.grid).exists():
        return None
    try:
        info = describe_file(laying.grid, trust)
    except SceneError as error:
        raise LayoutError(f"--grid: {error}") from None
    if info.grid is None:
        raise LayoutError(f"--grid: {info.obstacle}")
    return info.grid


def fits(
    card: ModelCard,
    files: Sequence[FileInfo],
    *,
    bands: Sequence[str] | None = None,
    laying: Laying = Laying(),  # noqa: B008 - a value
    masking: Masking = Masking(),  # noqa: B008 - a value
    lattice: GeoBox | None = None,
) -> SceneError | None:
    """Why a model cannot map files as they are; None where it can. Opens nothing."""
    try:
        assemble_scene(files, card, bands=bands, laying=laying, masking=masking, lattice=lattice)
    except SceneError as error:
        return error
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
    frame: GeoBox | None = None,
) -> Scene:
    """Make a scene of files that are described already; see `describe_scene` and `lay_out`. Opens nothing."""
    for info in files:
        if info.obstacle:
            raise SceneError(info.obstacle)
    images, alone = split_masks(files, masking)
    masks = Masks(alone, masking)
    numbers = Numbers(nodata, measure)
    sheets = [
        _finished(sheet, used, masks)
        for date in _dates(images, laying)
        for sheet, used in _sheets(date, card, bands, numbers, laying)
    ]
    groups = lay_out([sheet for sheet, _ in sheets], laying, lattice, frame)
    gsd, resampling = ground_sample_distance(groups[0].grid), None
    if card and (why := gsd_mismatch(groups[0].grid, card)):
        if not resample:
            raise SceneError(why)
        groups, resampling = resample_groups(groups, card)
        gsd = ground_sample_distance(groups[0].grid)
    used = [info for _, infos in sheets for info in infos]
    return Scene(
        groups=groups,
        gsd=gsd,
        time=max((sheet.time for sheet, _ in sheets if sheet.time), default=None),
        resampling=resampling,
        fingerprints=tuple(
            dict.fromkeys(
                stamp
                for info in used
                for stamp in ((undated(info.path), info.size, info.mtime_ns), *info.beside)
            )
        ),
    )


def _dates(files: Sequence[FileInfo], laying: Laying) -> list[list[FileInfo]]:
    """The files of each date that is composed; all of them where none is.

    Raises:
        SceneError: nothing says when one was taken.
    """
    if laying.composite is None:
        return [list(files)]
    dates: dict[str, list[FileInfo]] = {}
    for info in files:
        if info.time is None:
            raise LayoutError(
                f"--composite {laying.composite} needs the date of each file, and nothing says when "
                f"{info.name} was taken; write it into its name (20240531), or name it in a scene file with "
                f'its time (of a store of several dates each: path = "a.zarr@0")'
            )
        dates.setdefault(day_of(info.time), []).append(info)
    return [dates[day] for day in sorted(dates, reverse=True)]


def _finished(sheet: SheetGroups, used: list[FileInfo], masks: Masks) -> tuple[SheetGroups, list[FileInfo]]:
    """A sheet with its masks and its time, and the files that are used of it."""
    found = masks.of(used, sheet.groups[0].grid)
    groups = tuple(
        replace(group, sheets=tuple(replace(s, masks=found, time=sheet.time) for s in group.sheets))
        for group in sheet.groups
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
    if len(parts) == 1 or (bands is None and names[0] & names[1]):
        raise error
    try:
        return [_sheet(files, card, bands, numbers, laying)]  # bands that lie on grids of their own
    except SceneError as why:
        raise (error if names[0] & names[1] else why) from None


def _sheet(
    files: Sequence[FileInfo],
    card: ModelCard | None,
    bands: Sequence[str] | None,
    numbers: Numbers,
    laying: Laying,
) -> tuple[SheetGroups, list[FileInfo]]:
    """The band groups of one sheet, and the files that they lie in."""
    everything = [BandInFile(names, info) for info in files for names in info.bands]
    there = groups_there(card, [band.names for band in everything], bands) if card else ()
    chosen = _choose(everything, card, there, bands)
    for band in chosen:
        if band.dtype.startswith("complex"):
            raise SceneError(
                f"{band.info.path} holds complex numbers ({band.dtype}); a model needs real ones; "
                f"convert it first, for radar to intensity or amplitude"
            )
    if card:
        groups = card_groups(chosen, card, there, numbers, laying.resampling)
    elif bands is not None:
        groups = (named_group(chosen, numbers, laying.resampling),)
    else:
        groups = grid_groups(chosen, numbers)
    used = list({band.info.path: band.info for band in chosen}.values())
    for info in files:
        if info not in used:
            _refuse_unused(info, used, {name for band in chosen for name in band.names.names})
    time = next((info.time for info in used if info.time), None)
    return SheetGroups(groups, time, used[0].name), used


def _refuse_unused(info: FileInfo, used: Sequence[FileInfo], names: set[str]) -> None:
    """A file of other bands of the same place does no harm, nor a variable beside those that are used.

    Anything else was meant to be mapped.

    Raises:
        SceneError: it is used for nothing, and nothing says that its bands are others.
    """
    assert info.grid is not None, "files with an obstacle were refused"
    assert used[0].grid is not None, "the same"
    own = {name for band in info.bands for name in band.names}
    if own and not own & names and same_place(info.grid, used[0].grid):
        return
    holder = holder_of(info.path)
    beside = [one for one in used if holder is not None and holder_of(one.path) == holder]
    if beside and not any(_titles(info) & _titles(one) for one in beside):
        return
    raise SceneError(
        f"no band of {info.name} is used, only of {used[0].name}; files of one place are bands of one scene; "
        f"leave it out, or, if both show the place at different times, say with --overlap which counts, or "
        f"with --composite what becomes of both"
    )


def _titles(info: FileInfo) -> set[str]:
    return {band.label for band in info.bands}


def _choose(
    everything: Sequence[BandInFile],
    card: ModelCard | None,
    there: Sequence[BandGroup],
    bands: Sequence[str] | None,
) -> list[BandInFile]:
    """Bands in the order of groups that are there; without a card those that are named, or all but alpha."""
    names = [band.names for band in everything]
    if card is None:
        if bands is None:
            return [b for b in everything if not b.names.alpha] or list(everything)
        return [everything[i] for i in pick_bands(bands, (), names, "")]
    wanted = [entry for group in there for entry in group.bands]
    if len(wanted) > 1 and (palette := next((b.info for b in everything if _is_palette(b)), None)):
        raise SceneError(
            f"{palette.path} is a palette image: its numbers stand for colours; {card.called} needs "
            f"bands; expand it first: gdal_translate -expand rgb in.tif out.tif"
        )
    places = pick_bands(bands, wanted, names, card.called) if bands else match_bands(card, wanted, names)
    return [everything[i] for i in places]


def _is_palette(band: BandInFile) -> bool:
    return band.info.colours[band.names.index - 1] == "palette"
