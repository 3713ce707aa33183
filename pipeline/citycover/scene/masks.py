"""Masks of a scene: which files are masks, and which of them lies on each sheet.

A known mask is found by what files and bands are called; it is never taken for a band of the image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from odc.geo.geobox import GeoBox

from citycover.errors import LayoutError
from citycover.geometry.grid import grid_text, pixel_ground_size
from citycover.scene.bands import fold
from citycover.scene.file import FileInfo
from citycover.scene.masking import Masking, MaskRule, is_called, known_mask
from citycover.scene.scene import BandSource, MaskSource
from citycover.scene.when import day_of


def split_masks(files: Sequence[FileInfo], masking: Masking) -> tuple[list[FileInfo], list[FileInfo]]:
    """Files that hold the image, and files that are masks alone, used or not."""
    named = {rule.name.lower() for rule in masking.parsed}
    images: list[FileInfo] = []
    masks: list[FileInfo] = []
    for info in files:
        alone = known_mask(info.name) or info.name.lower() in named or _one_band_called(info, named)
        (masks if alone else images).append(info)
    return images or list(files), masks


def _one_band_called(info: FileInfo, names: set[str]) -> bool:
    return len(info.dtypes) == 1 and any(is_called(info.name, name) for name in names)


def unused_masks(files: Sequence[FileInfo], masking: Masking) -> str | None:
    """A word on masks that are there and do not count; None: all do."""
    if masking.rules or len(files) == 1:
        return None
    found = next(((kind, info) for info in files if (kind := known_mask(info.name))), None)
    if found is None:
        return None
    return (
        f"{found[1].name} says where clouds are, and is not used; with --mask {found[0]} they become nodata"
    )


class Masks:
    """Masks of a scene: looked through once, laid on one sheet after the other."""

    def __init__(self, files: Sequence[FileInfo], masking: Masking) -> None:
        """`files`: those that are masks alone, of any sheet."""
        self.files, self.masking = files, masking
        self._by_path = {info.path: info for info in files}
        self._found = {rule: _answering(rule, files) for rule in masking.parsed}
        self._trees = {rule: shapely.STRtree(_boxes(found)) for rule, found in self._found.items()}

    def of(self, sheet: Sequence[FileInfo], grid: GeoBox) -> tuple[MaskSource, ...]:
        """The masks of one sheet, each rule once.

        Args:
            sheet: its files: a mask may be one of their bands.
            grid: of the sheet; files may lie on others, and are warped.

        Raises:
            LayoutError: none answers to a rule, or it does not lie on the sheet.
        """
        return tuple(self._placed(rule, sheet, grid) for rule in self._found)

    def files_of(self, sources: Iterable[MaskSource]) -> list[FileInfo]:
        """Files that are masks alone, of some masks."""
        paths = dict.fromkeys(mask.source.path for mask in sources)
        return [self._by_path[path] for path in paths if path in self._by_path]

    def _placed(self, rule: MaskRule, sheet: Sequence[FileInfo], grid: GeoBox) -> MaskSource:
        everywhere, own = self._found[rule], _answering(rule, sheet)
        if not (everywhere or own):
            files = list(dict.fromkeys((*self.files, *sheet)))
            short = next((info for info in files if rule.index and is_called(info.name, rule.name)), None)
            if short is not None:
                raise LayoutError(
                    f"--mask {rule.name}: {short.name} has {len(short.dtypes)} bands, and band {rule.index} "
                    f"is needed; give the mask as it was delivered, or say which numbers of a band hide the "
                    f"ground: --mask BAND=VALUES"
                )
            have = ", ".join(dict.fromkeys(info.name for info in files))
            raise LayoutError(
                f"--mask {rule.name}: no file or band of the scene is called so; it has {have}; give the "
                f"file of the mask beside those of the bands"
            )
        near = sorted(self._trees[rule].query(shapely.box(*grid.boundingbox.bbox)).tolist())
        over = [one for one in (*(everywhere[k] for k in near), *own) if _covers(one[0], grid)]
        if not over:
            other = (*everywhere, *own)[0][0]
            raise LayoutError(
                f"--mask {rule.name}: {other.name} lies on {_grid_of(other)}, which does not cover "
                f"{sheet[0].name} as it is read, on {grid_text(grid)}; give the mask of this sheet, in that "
                f"CRS"
            )
        info, index = _own(rule, over, sheet)
        return _source(rule, info, index, self.masking.grow)


def _answering(rule: MaskRule, files: Sequence[FileInfo]) -> list[tuple[FileInfo, int]]:
    """Files that have the band that a rule means, with its number."""
    return [(info, index) for info in files if (index := _index_of(rule, info)) is not None]


def _boxes(found: Sequence[tuple[FileInfo, int]]) -> list[shapely.Geometry]:
    """Where masks lie, each in its own CRS; nowhere where it has no grid."""
    grids = (info.grid for info, _ in found)
    return [shapely.box(*grid.boundingbox.bbox) if grid is not None else shapely.Polygon() for grid in grids]


def _own(
    rule: MaskRule, found: Sequence[tuple[FileInfo, int]], sheet: Sequence[FileInfo]
) -> tuple[FileInfo, int]:
    """The mask of a sheet among those of its place: of its own file, date, name; then the finest, and of its
    own folder.

    Raises:
        LayoutError: all are of other days, or two have an equal right.
    """
    time = next((info.time for info in sheet if info.time), None)
    ranked = sorted(
        ((rank, number) for number, (info, _) in enumerate(found) if (rank := _rank(info, time, sheet)))
    )
    if not ranked:
        raise LayoutError(
            f"--mask {rule.name}: {found[0][0].name} is of {found[0][0].time}, {sheet[0].name} of {time}; "
            f"give the mask of each date"
        )
    if len(ranked) > 1 and ranked[0][0] == ranked[1][0]:
        one, other = (found[number][0].name for _, number in ranked[:2])
        raise LayoutError(
            f"--mask {rule.name}: {one} and {other} both lie on {sheet[0].name}; leave one out, or name the "
            f"one that is meant: --mask {one}=VALUES"
        )
    return found[ranked[0][1]]


def _rank(
    info: FileInfo, time: str | None, sheet: Sequence[FileInfo]
) -> tuple[bool, bool, int, float, int] | None:
    """How far a mask is from a sheet, nearest first; None where it is of another day."""
    if time and info.time and day_of(info.time) != day_of(time):
        return None
    alike = len(os.path.commonprefix([info.name, sheet[0].name]))  # noqa: RUF071 - names, not paths
    near = len(os.path.commonprefix([info.path, sheet[0].path]))  # noqa: RUF071 - of one folder, the longer
    return info not in sheet, info.time != time, -alike, info.gsd or math.inf, -near


def _source(rule: MaskRule, info: FileInfo, index: int, grow: float) -> MaskSource:
    dtype = info.dtypes[index - 1]
    if not dtype.startswith(("int", "uint")):
        raise LayoutError(
            f"--mask {rule.name}: band {index} of {info.name} is {dtype}; a mask has whole numbers; convert "
            f"it first: gdal_translate -ot Byte in.tif out.tif"
        )
    kind = np.iinfo(dtype)
    if not (
        any(kind.min <= value <= kind.max for value in rule.values) or min(rule.bits, default=64) < kind.bits
    ):
        raise LayoutError(
            f"--mask {rule.name}: band {index} of {info.name} is {dtype}, numbers from {kind.min} to "
            f"{kind.max} of {kind.bits} bits; none that would hide the ground can "
            f"occur; give numbers that stand in it"
        )
    assert info.grid is not None, "files with an obstacle were refused"
    source = BandSource(
        path=info.path,
        index=index,
        name=rule.name,
        dtype=dtype,
        nodata=info.nodata[index - 1],
        validity=info.masks[index - 1],
        losses=tuple(loss for band, loss in info.losses if band in (None, index)),
        promise=info.promise,
    )
    height, width = pixel_ground_size(info.grid)
    # Less than a pixel would be nothing, and who asks for more to be hidden gets more.
    grown = (max(1.0, grow / height), max(1.0, grow / width)) if grow else (0.0, 0.0)
    return MaskSource(source, info.grid, rule.values, rule.bits, grown, rule.numbers)


def _index_of(rule: MaskRule, info: FileInfo) -> int | None:
    """Number of the band that a rule means; None: none of the file.

    Raises:
        LayoutError: it means the file, which has several.
    """
    by_file = info.name.lower() == rule.name.lower() or is_called(info.name, rule.name)
    if rule.index is not None:
        return rule.index if by_file and rule.index <= len(info.dtypes) else None
    if by_file and len(info.dtypes) == 1:
        return 1
    name = fold(rule.name)
    found = (b.index for b in info.bands if name and (fold(b.title) == name or name in b.literals))
    return next(found, _only_band(rule, info) if by_file else None)


def _only_band(rule: MaskRule, info: FileInfo) -> int:
    """The band of a file that a rule names, opacity aside.

    Raises:
        LayoutError: it has several, and the first need not be the one that is meant.
    """
    numbers = [band.index for band in info.bands if not band.alpha]
    if len(numbers) != 1:
        raise LayoutError(
            f"--mask {rule.name}: {info.name} has {len(numbers)} bands "
            f"({', '.join(band.label for band in info.bands)}), and a mask is one; name the band that is "
            f"meant: --mask BAND=VALUES"
        )
    return numbers[0]


def _covers(mask: FileInfo, other: GeoBox) -> bool:
    """Whether a mask lies on all of a sheet, to a pixel of the coarser."""
    one = mask.grid
    assert one is not None, "files with an obstacle were refused"
    if one.crs != other.crs:
        return False
    slack = max(abs(grid.transform.a) for grid in (one, other))
    (west, south, east, north), box = one.boundingbox.bbox, other.boundingbox.bbox
    return bool(
        west - slack <= box[0] and south - slack <= box[1]
        and east + slack >= box[2] and north + slack >= box[3]
    )  # fmt: skip


def _grid_of(info: FileInfo) -> str:
    return grid_text(info.grid) if info.grid is not None else "no grid"
