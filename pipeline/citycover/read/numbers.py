"""A look at the numbers of a scene before a model is given them: are they on the scale that it learned?

A network cannot tell: reflectance of 0 to 1 looks like night to a model of 0 to 10000, and it maps it without
a word. The look is the small version of `small.py`, where that is cheap.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import NodataShadowWarning, RasterioError

from citycover.errors import LayoutError, SceneError
from citycover.geometry.grid import ground_sample_distance
from citycover.model.card import BandGroup, ModelCard
from citycover.read.small import Hints, some_sheets
from citycover.scene.measure import perhaps_offset
from citycover.scene.scene import BandSource, Scene, Sheet

_SIDE = 250
"""Pixels of the look along the longer side: 1 % of a band are still hundreds, and it takes milliseconds."""

_REFLECTANCE = 1000.0
"""A card whose largest number is above this means reflectance times 10000, or the counts of a sensor."""

_OUTSIDE = 0.02
"""Share of numbers outside the card's range that is another scale: a few are glint or cloud."""

_EIGHT_BITS = 255.0

_MOST_OUTSIDE = 0.5
"""Share from which on they cannot be the card's; of 8 bits no number lies outside."""

_FEW = 0.01
"""Share of numbers near the card's range up to which they are no image of what it means, whoever says so."""

_BELOW, _ABOVE = 0.01, 0.5
"""How far beyond the card's range, in lengths of it, whole scenes may lie: deep water whose haze was taken
off too well; snow, cloud and glint."""

_LANDSAT_C2 = re.compile(r"(?:^|_)L[COTE]\d{2}_L2S[PR]_", re.IGNORECASE)

_LANDSAT_ZERO = 4800.0
"""Landsat writes reflectance 0 as 5000 (level 1) or 7273 (level 2); what is this bright everywhere is that,
or snow."""

_CAMERA = 5.0
"""Metres: finer pixels are those of cameras that count photons in 11 or 12 bits, unless somebody says that
they were made reflectance."""

_OFFSET = 1000.0
"""What Sentinel-2 adds to reflectance x 10000 since baseline 04.00."""

Way = Callable[[BandGroup, float, float], str]
"""What to do, in words, about numbers that mean reflectance of `scale * number + offset`."""


def check_numbers(
    scene: Scene, card: ModelCard, within: GeoBox | None = None, hints: Hints | None = None
) -> str | None:
    """A warning where numbers seem to be of another scale than the model's; None where they do not.

    Args:
        scene: whose numbers.
        card: of the model.
        within: what is to be mapped of it; None: all.
        hints: small versions of its files; None: read for this alone.

    Raises:
        SceneError: they are of another scale for certain.
    """
    hints = hints or Hints()
    warnings_: list[str] = []
    for group, wanted in zip(scene.groups, card.groups, strict=True):
        if expected_range(wanted) is None and wanted.unit != "dB":
            continue
        looks = [look for sheet in some_sheets(group, within) if (look := _look(sheet, hints)) is not None]
        numbers = np.concatenate(looks) if looks else np.empty(0)
        if numbers.size:
            gsd = ground_sample_distance(group.native)
            found = judge_numbers(numbers, group.bands, wanted, card.name, gsd=gsd)
            warnings_ += [found] if found else []
    return "; ".join(warnings_) or None


def refuse_masks(scene: Scene, within: GeoBox | None, hints: Hints) -> None:
    """Refuse a known mask that holds no number of its kind: it would hide nothing.

    Others among them say nothing: reduced levels of JPEG 2000 are smoothed, and mosaics have numbers of their
    own where there is no mask.

    Args:
        scene: whose masks.
        within: what is to be mapped of it; None: all.
        hints: small versions of its files.

    Raises:
        LayoutError: it is no such mask, or its numbers were changed.
    """
    sheets = (sheet for group in scene.groups for sheet in some_sheets(group, within))
    for mask in dict.fromkeys(mask for sheet in sheets for mask in sheet.masks if mask.numbers):
        numbers = _numbers_of([mask.source], hints)
        if numbers is None or not numbers.size or np.isin(numbers, mask.numbers).any():
            continue
        name, file, there = mask.source.name, Path(mask.source.path).name, np.unique(numbers)
        few = ", ".join(f"{number:g}" for number in there[:5]) + ", ..." * (there.size > 5)
        raise LayoutError(
            f"--mask {name}: band {mask.source.index} of {file} holds {few}, and that of {name} 0 to "
            f"{mask.numbers[-1]}; give the mask as it was delivered, or say which numbers hide the ground: "
            f"--mask {file}=VALUES"
        )


def expected_range(wanted: BandGroup) -> tuple[float, float] | None:
    """Smallest and largest number that a network learned; None: nothing says so."""
    eight_bits = "uint8" in wanted.dtypes and set(wanted.dtypes) <= {"uint8", "float32"}
    return wanted.value_range or ((0.0, 255.0) if eight_bits else None)


def _look(sheet: Sheet, hints: Hints) -> NDArray[Any] | None:
    """Valid numbers of a small version, all bands together."""
    native = sorted(sheet.native, key=lambda band: list(sheet.files).index(band.path))  # as they are read
    parts = [native] if native else []
    parts += [[band] for band in sheet.bands if band.lies is not None]  # of other shapes
    found = [numbers for part in parts if (numbers := _numbers_of(part, hints)) is not None]
    return np.concatenate(found) if found else None


def _numbers_of(bands: Sequence[BandSource], hints: Hints) -> NDArray[Any] | None:
    """Valid numbers of a small version of files of one shape, as the network would see them."""
    files: dict[str, list[int]] = {}
    for band in bands:
        files.setdefault(band.path, []).append(band.index)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NodataShadowWarning)  # numbers are looked at, not their validity
            small = hints.of(files, unseen=any(band.promise for band in bands))
    except RasterioError:
        return None  # reading for the map reports what is wrong, with its place
    if small is None:
        return None
    step = -(-max(small.shape) // _SIDE)
    found = []
    for plane, band in zip(small[:, ::step, ::step], bands, strict=True):
        numbers = np.ma.compressed(plane).astype(np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if band.nodata is not None:
            numbers = numbers[numbers != band.nodata]
        found.append(numbers * band.gain + band.bias)
    return np.concatenate(found)


def _options(wanted: BandGroup, scale: float, offset: float) -> str:
    """The options that say that numbers are reflectance of `scale * number + offset`."""
    if wanted.unit != "reflectance":
        scale, offset = scale * 10000, offset * 10000  # as cards without a unit count it
    return f"--scale {scale:g} --offset {offset:g}"


def judge_numbers(
    numbers: NDArray[Any],
    bands: Sequence[BandSource],
    wanted: BandGroup,
    model: str,
    way: Way = _options,
    *,
    gsd: float | None = None,
) -> str | None:
    """A warning where numbers seem to be of another scale than a model's; None where they do not.

    Args:
        numbers: some of all bands, as the network would see them; at least one.
        bands: where they come from, and whether they were converted.
        wanted: of the card.
        model: its name.
        way: what to do about them.
        gsd: metres of a pixel on the ground; None: not known.

    Raises:
        SceneError: they are of another scale for certain, and neither file nor user says what they mean.
    """
    seen = _Seen.of(numbers, Path(bands[0].path).name)
    told = all(band.told for band in bands)
    limits = expected_range(wanted)
    if not told and wanted.unit == "dB" and seen.first >= 0:
        raise SceneError(
            f"{seen.found}, which are no decibels of backscatter: most of those lie below 0; model '{model}' "
            f"was made for dB; convert power to decibels first: 10 log10(x)"
        )
    if limits is None:
        return None
    low, high = limits
    needed = f"model '{model}' was made for {low:g} to {high:g}"
    remedy = "say what they mean (--scale, --offset), or choose another model"
    if not told and (why := _of_another_kind(seen, high, wanted, needed, way, gsd)):
        raise SceneError(f"{seen.found}{why}")
    if seen.of_one and high >= _EIGHT_BITS:
        raise SceneError(f"{seen.found}, as they are converted; {needed}; {remedy}")
    outside = float(np.mean((numbers < low) | (numbers > high)))
    near = (numbers >= low - _BELOW * (high - low)) & (numbers <= high + _ABOVE * (high - low))
    if told and float(np.mean(near)) <= _FEW:
        raise SceneError(f"{seen.found}, as they are converted, none near those; {needed}; {remedy}")
    if outside > _OUTSIDE:
        text = f"{seen.found}, {outside:.0%} of them outside; {needed}; {remedy}"
        if not told and (high == _EIGHT_BITS or outside > _MOST_OUTSIDE):
            raise SceneError(text)
        return text
    if not told and high >= _REFLECTANCE and seen.first >= _OFFSET and perhaps_offset(seen.name):
        return (
            f"{seen.found}, perhaps with the {_OFFSET:g} that Sentinel-2 adds since processing baseline "
            f"04.00; {needed}; give the .SAFE folder, which says so, or {way(wanted, 0.0001, -0.1)}"
        )
    return None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found of the numbers of a file."""

    name: str
    first: float
    """1 % are below."""
    middle: float
    last: float
    """1 % are above."""
    whole: bool
    """All are whole numbers."""

    @classmethod
    def of(cls, numbers: NDArray[Any], name: str) -> _Seen:
        first, middle, last = np.quantile(numbers, (0.01, 0.5, 0.99))
        return cls(name, first, middle, last, bool(np.all(numbers == np.rint(numbers))))

    @property
    def of_one(self) -> bool:
        """Whether they are fractions of one: nearly all are 0 to a network of larger numbers."""
        return self.last <= 2 and self.first >= -0.5 and not self.whole

    @property
    def found(self) -> str:
        return f"numbers of {self.name} are {self.first:.4g} to {self.last:.4g} (1 % to 99 %)"


def _of_another_kind(
    seen: _Seen, high: float, wanted: BandGroup, needed: str, way: Way, gsd: float | None
) -> str | None:
    """What numbers are instead of those that a card of a range means, and what to do; None: they may be."""
    reflective = high >= _REFLECTANCE
    if seen.of_one:
        if reflective:
            return f", which is reflectance of 0 to 1; {needed}; convert it: {way(wanted, 1, 0)}"
        if high == _EIGHT_BITS:
            return f", which is a scale of 0 to 1; {needed}; convert them: {way(wanted, high / 10000, 0)}"
    if not reflective:
        return None
    landsat = way(wanted, 0.0000275, -0.2)
    right = f"if they are reflectance x 10000, say so: {way(wanted, 0.0001, 0)}"
    if _LANDSAT_C2.search(seen.name) and seen.first >= 0 and seen.middle > 1:
        return (
            f", reflectance as Landsat Collection 2 writes it (0.0000275 x - 0.2); {needed}, "
            f"reflectance x 10000; convert them: {landsat}"
        )
    if seen.first >= 0 and seen.last <= _EIGHT_BITS:
        return f", as of 8 bits; {needed}; give the file from before they were stretched to 8 bits; {right}"
    if seen.first >= _LANDSAT_ZERO:
        return (
            f", as Landsat writes them, or all is snow or cloud; {needed}; convert them, of Collection 2 "
            f"level 2 by {landsat}; of level 1 give the product's folder, whose MTL.txt says how; {right}"
        )
    if wanted.unit == "reflectance" and gsd is not None and gsd < _CAMERA:
        return (
            f", of pixels of {gsd:.2g} m, and nothing says that they are reflectance: cameras so fine count "
            f"in 11 or 12 bits; {needed}; give reflectance, or choose a model of such imagery; {right}"
        )
    return None
