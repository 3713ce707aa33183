"""A look at the numbers of a scene before a model is given them: are they on the scale that it learned?

A network cannot tell: reflectance of 0 to 1 looks like night to a model of 0 to 10000, and it maps it without
a word. The look is the small version of `small.py`, where that is cheap.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NodataShadowWarning, RasterioError

from citycover.errors import SceneError
from citycover.model.card import BandGroup, ModelCard
from citycover.read.small import HINT_BYTES, read_small, some_sheets
from citycover.scene.scene import BandSource, Scene, Sheet

_SIDE = 500
"""Pixels of the look along the longer side."""

_REFLECTANCE = 1000.0
"""A card whose largest number is above this means reflectance times 10000, or the counts of a sensor."""

_OUTSIDE = 0.02
"""Share of numbers outside the card's range that is another scale: a few are glint or cloud."""

_LANDSAT_C2 = re.compile(r"(?:^|_)L[COTE]\d{2}_L2S[PR]_", re.IGNORECASE)

_LANDSAT_ZERO = 6500.0
"""Collection 2 writes reflectance 0 as 7273; what is this bright everywhere is that, or snow."""


def check_numbers(scene: Scene, card: ModelCard) -> str | None:
    """A warning where numbers seem to be of another scale than the model's; None where they do not.

    Raises:
        SceneError: they are of another scale for certain.
    """
    for group, wanted in zip(scene.groups, card.groups, strict=True):
        if wanted.value_range is None:
            continue
        looks = [look for sheet in some_sheets(group) if (look := _look(sheet)) is not None]
        numbers = np.concatenate(looks) if looks else np.empty(0)
        if numbers.size and (warning := judge_numbers(numbers, group.bands, wanted, card.name)):
            return warning
    return None


def _look(sheet: Sheet) -> NDArray[Any] | None:
    """Valid numbers of a small version, all bands together."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NodataShadowWarning)  # numbers are looked at, not their validity
            small = read_small(sheet.files, _SIDE, HINT_BYTES)
    except RasterioError:
        return None  # reading for the map reports what is wrong, with its place
    if small is None:
        return None
    bands = sorted(sheet.native, key=lambda band: list(sheet.files).index(band.path))  # as they were read
    found = []
    for plane, band in zip(small, bands, strict=True):
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
    way: Callable[[BandGroup, float, float], str] = _options,
) -> str | None:
    """A warning where numbers seem to be of another scale than a model's; None where they do not.

    Args:
        numbers: some of all bands, as the network would see them; at least one.
        bands: where they come from, and whether they were converted.
        wanted: of the card, with a range.
        model: its name.
        way: what to do, in words, about numbers that mean reflectance of `scale * number + offset`.

    Raises:
        SceneError: they are of another scale for certain.
    """
    assert wanted.value_range is not None, "asked only where the card has a range"
    low, high = wanted.value_range
    first, middle, last = np.quantile(numbers, (0.01, 0.5, 0.99))
    name = Path(bands[0].path).name
    found = f"numbers of {name} are {first:.4g} to {last:.4g} (1 % to 99 %)"
    needed = f"model '{model}' was made for {low:g} to {high:g}"
    plain = all(band.plain for band in bands)
    if plain and high >= _REFLECTANCE and _LANDSAT_C2.search(name) and first >= 0 and middle > 1:
        raise SceneError(
            f"{found}, reflectance as Landsat Collection 2 writes it (0.0000275 x - 0.2); {needed}, "
            f"reflectance x 10000; convert them: {way(wanted, 0.0000275, -0.2)}"
        )
    if plain and high >= _REFLECTANCE and last <= 2 and np.any(numbers != np.rint(numbers)):
        raise SceneError(
            f"{found}, which is reflectance of 0 to 1; {needed}; convert it: {way(wanted, 1, 0)}"
        )
    if high >= _REFLECTANCE and last <= 255:
        return f"{found}, as of 8 bits; {needed}; if they were stretched to 8 bits, give the unstretched file"
    if plain and high >= _REFLECTANCE and first >= _LANDSAT_ZERO:
        return (
            f"{found}, as Landsat Collection 2 writes reflectance (0.0000275 x - 0.2), or all is snow or "
            f"cloud; {needed}; convert them ({way(wanted, 0.0000275, -0.2)}), or choose another model"
        )
    outside = float(np.mean((numbers < low) | (numbers > high)))
    if outside > _OUTSIDE:
        return (
            f"{found}, {outside:.0%} of them outside; {needed}; say what they mean (--scale, --offset), or "
            f"choose another model"
        )
    return None
