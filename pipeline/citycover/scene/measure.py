"""What numbers of a file mean, and how they become those that a network learned.

A file says `value = scale * number + offset` in a unit (tags of GDAL, STAC, the rules of a product), so does
the card of a model. Where the card has a unit, the one follows from the other:

    number of the network = (scale * number + offset - card offset) / card scale = gain * number + bias

Cards without one (`dn`: raw digital numbers) are given what stands in the file, unless the user says other.
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


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the user says of the numbers of all bands; None: as the files say."""

    nodata: float | None = None
    measure: Measure | None = None


def measure_of(name: str, scale: float, offset: float, unit: str | None) -> Measure | None:
    """What a file says of a band; None where it says nothing.

    Args:
        name: of the file: Landsat Collection 2 writes surface reflectance its own way, and seldom says so.
        scale: as tagged; 1 where nothing is.
        offset: likewise; 0.
        unit: likewise.
    """
    if (scale, offset) != (1.0, 0.0) and math.isfinite(scale) and scale and math.isfinite(offset):
        return Measure(scale, offset, _WRITTEN.get((unit or "").strip().lower()))
    if _LANDSAT_C2.search(name):
        return Measure(0.0000275, -0.2, "reflectance")
    return None


def stated_measure(scale: float, offset: float, unit: str | None) -> Measure:
    """What a scene file says of a band: nothing is guessed beside it."""
    return Measure(scale, offset, _WRITTEN.get((unit or "").lower()))


def conversion(
    name: str, said: Measure | None, asked: Measure | None, group: BandGroup | None
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
