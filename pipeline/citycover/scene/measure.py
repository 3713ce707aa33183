"""What numbers of a file mean, and how they become those that a network learned.

A file says `value = scale * number + offset` in a unit (tags of GDAL, STAC, the rules of a product), so does
the card of a model. Where the card has a unit, the one follows from the other:

    number of the network = (scale * number + offset - card offset) / card scale = gain * number + bias

Cards without one (`dn`: raw digital numbers) are given what stands in the file, unless the user says other.

Names of files as agencies give them say it too, where their tags are silent:

    Landsat Collection 2 level 2     0.0000275 x - 0.2
    Landsat level 1                  counts: what they mean stands in MTL.txt alone
    Sentinel-2 as JPEG 2000          0.0001 x - 0.1 since processing baseline 04.00 (25 January 2022)
    PlanetScope AnalyticMS           radiance; with _SR 0.0001 x
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from citycover.errors import ConfigError, SceneError
from citycover.model.unit import UNITS, Unit

if TYPE_CHECKING:
    from citycover.model.card import BandGroup

_LANDSAT_C2 = re.compile(r"(?:^|_)L[COTE]\d{2}_L2S[PR]_.*_SR_(?!.*(?:QA|aerosol))", re.IGNORECASE)

_LANDSAT_L1 = re.compile(r"(?:^|_)L[COTEM](?:\d{2}_L1(?:TP|GT|GS)_.*|\d{14}[A-Z]{3}\d{2})_B\d", re.IGNORECASE)

_PLANET = re.compile(r"_3B_AnalyticMS(?P<surface>(?:_8b)?_SR)?(?![a-z0-9])(?!.*udm)", re.IGNORECASE)

_SENTINEL2 = re.compile(
    r"^T\d{2}[A-Z]{3}_(?P<day>\d{8})T\d{6}_(?:B\d[\dA])(?:_\d{2}m)?\.(?P<kind>\w+)$", re.IGNORECASE
)

_BASELINE_4 = "20220125"
"""The first day of processing baseline 04.00: what was taken since was processed by it or a later one."""

_WRITTEN: dict[str, Unit] = {"reflectance": "reflectance", "db": "dB", "m": "m", "metre": "m", "meter": "m"}


@dataclass(frozen=True, slots=True)
class Measure:
    """What the numbers of a band mean: `scale * number + offset`."""

    scale: float = 1.0
    offset: float = 0.0
    unit: Unit | None = None
    """None: that of the model."""

    def __post_init__(self) -> None:
        """Raise ConfigError where numbers cannot mean such a thing."""
        if not (math.isfinite(self.scale) and self.scale != 0 and math.isfinite(self.offset)):
            raise ConfigError(
                f"--scale takes a number that is not 0 and --offset a number, got {self.scale:g} and "
                f"{self.offset:g}; a file's value is scale * number + offset"
            )
        if self.unit is not None and self.unit not in UNITS:
            raise ConfigError(f"--unit takes {', '.join(UNITS)}; got {self.unit!r}")

    @property
    def words(self) -> str:
        """For people: `0.0001 x - 0.1, reflectance`."""
        offset = f" {'-' if self.offset < 0 else '+'} {abs(self.offset):g}" if self.offset else ""
        return f"{self.scale:g} x{offset}" + (f", {self.unit}" if self.unit else "")


@dataclass(frozen=True, slots=True)
class Meaningless:
    """Numbers that no scale and offset known here make a quantity of."""

    what: str
    """What they are, in words."""
    remedy: str
    """What to give instead, in words."""

    @property
    def words(self) -> str:
        """For people."""
        return self.what


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the user says of the numbers of all bands; None: as the files say."""

    nodata: float | None = None
    measure: Measure | None = None


def measure_of(name: str, scale: float, offset: float, unit: str | None) -> Measure | Meaningless | None:
    """What a file says of a band; None where it says nothing.

    Args:
        name: of the file, which may say what its tags do not.
        scale: as tagged; 1 where nothing is.
        offset: likewise; 0.
        unit: likewise.
    """
    known = _WRITTEN.get((unit or "").strip().lower())
    if (scale, offset) != (1.0, 0.0) and math.isfinite(scale) and scale and math.isfinite(offset):
        return Measure(scale, offset, known)
    return Measure(unit=known) if known else _said_by_name(name)


def _said_by_name(name: str) -> Measure | Meaningless | None:
    if _LANDSAT_C2.search(name):
        return Measure(0.0000275, -0.2, "reflectance")
    if _LANDSAT_L1.search(name):
        return Meaningless(
            "counts of Landsat level 1",
            "give the folder or archive of the product, whose MTL.txt says what they mean, or fetch level 2",
        )
    if planet := _PLANET.search(name):
        if planet["surface"]:
            return Measure(0.0001, 0, "reflectance")
        return Meaningless("radiance of PlanetScope", "fetch surface reflectance (AnalyticMS_SR)")
    tile = _SENTINEL2.search(name)
    if tile and tile["kind"].lower() == "jp2" and tile["day"] >= _BASELINE_4:
        return Measure(0.0001, -0.1, "reflectance")
    return None


def perhaps_offset(name: str) -> bool:
    """Whether a file is Sentinel-2's, of which its name does not tell if an offset was added to its numbers.

    Older scenes are processed anew with it; GeoTIFFs are made with it and without.
    """
    return bool(_SENTINEL2.search(name)) and _said_by_name(name) is None


def nodata_of(name: str) -> float | None:
    """The number of pixels without a value, where a name tells: Sentinel-2's JPEG 2000 have no tag for it."""
    tile = _SENTINEL2.search(name)
    return 0.0 if tile and tile["kind"].lower() == "jp2" else None


def stated_measure(scale: float, offset: float, unit: str | None) -> Measure:
    """What a scene file says of a band: nothing is guessed beside it."""
    return Measure(scale, offset, _WRITTEN.get((unit or "").lower()))


def conversion(
    name: str, said: Measure | Meaningless | None, asked: Measure | None, group: BandGroup | None
) -> tuple[float, float]:
    """Gain and bias that make numbers of a file those of a network; (1, 0) where they are taken as they are.

    Args:
        name: of the file, for messages.
        said: by the file.
        asked: by the user, who knows better.
        group: of the card; None: there is no model.

    Raises:
        SceneError: the unit is another than the model's.
    """
    unit: Unit = group.unit if group else "dn"
    measure = asked or (said if unit != "dn" else None)
    if measure is None:
        return 1.0, 0.0
    if isinstance(measure, Meaningless):
        raise SceneError(
            f"numbers of {name} are {measure.what}, the model needs {unit}; {measure.remedy}, or, if you "
            f"know it, say what they mean: --scale and --offset"
        )
    if measure.unit is not None and measure.unit != unit:
        raise SceneError(
            f"numbers of {name} are {measure.unit}, the model needs {unit}; choose a model made for them, "
            f"or, if that is wrong, say what they mean: --scale, --offset and --unit {unit}"
        )
    scale, offset = (group.unit_scale, group.unit_offset) if group else (1.0, 0.0)
    divisor = _exact(scale)
    return float(_exact(measure.scale) / divisor), float((_exact(measure.offset) - _exact(offset)) / divisor)


def _exact(value: float) -> Fraction:
    """The decimal that was written: 0.0000275 / 0.0001 is 0.275, and not almost."""
    return Fraction(repr(value))


def said_by_stac(band: Any) -> tuple[float, float, str | None]:
    """Scale, offset and unit of a band of a STAC item."""
    values = [band.get(f"raster:{name}", band.get(name)) for name in ("scale", "offset")]
    scale, offset = (
        float(value) if isinstance(value, int | float) else usual
        for value, usual in zip(values, (1.0, 0.0), strict=True)
    )
    unit = band.get("unit")
    return scale, offset, unit if isinstance(unit, str) else None
