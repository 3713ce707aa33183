"""Masking: pixels that clouds hide are no pixels, where a band that came with the imagery says so.

    --mask scl                    a mask that is known here, by its own name
    --mask scl=3,8-10             other values of it
    --mask qa_pixel=bits:3,4      where one of these bits is set
    --mask clouds.tif=1           any file or band of whole numbers

A rule says which numbers hide the ground; `masks.py` finds the band that has them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from citycover.errors import ConfigError

_LARGEST = 1 << 32
"""No mask has larger numbers."""


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Numbers of one band that hide the ground."""

    name: str
    """Of the band, or its file."""
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    """Any of them set hides it, counted from 0."""
    index: int | None = None
    """Number of the band in a file of that name; None: the file has one band, or the band has that name."""
    numbers: range = range(0)
    """All that stand in such a mask; empty: any may."""


KNOWN: dict[str, tuple[MaskRule, ...]] = {
    # Sentinel-2 L2A: no data, saturated, cloud shadow, cloud of medium and high probability, cirrus.
    "scl": (MaskRule("scl", values=(0, 1, 3, 8, 9, 10), numbers=range(12)),),
    # Landsat Collection 2: fill, dilated cloud, cirrus, cloud, cloud shadow.
    "qa_pixel": (MaskRule("qa_pixel", bits=(0, 1, 2, 3, 4)),),
    # HLS 2.0: cloud, next to cloud or shadow, cloud shadow; 255 (no data) has all of them.
    "fmask": (MaskRule("fmask", bits=(1, 2, 3)),),
    # PlanetScope since 2018: shadow, heavy haze, cloud, and whatever makes a pixel unusable.
    "udm2": (
        *(MaskRule("udm2", values=(1,), index=index, numbers=range(2)) for index in (3, 5, 6)),
        MaskRule("udm2", bits=tuple(range(8)), index=8),
    ),
    # Its older mask: any bit makes a pixel unusable.
    "udm": (MaskRule("udm", bits=tuple(range(8))),),
}
"""By name. Snow is land cover and is not hidden."""

_BEHIND = re.compile(r"[_\-.](\d+m|\d{8}(t\d{6})?|clip|reproject)$", re.IGNORECASE)
"""What may follow the name of a mask in that of its file."""


def known_mask(file: str) -> str | None:
    """The known mask that a file is by its name; None: it is none.

    >>> known_mask("T29UNU_20221005T115411_SCL_20m.jp2"), known_mask("muscl.tif")
    ('scl', None)
    """
    low = file.lower()  # there may be thousands of files, and few are masks
    return next((name for name in KNOWN if name in low and is_called(file, name)), None)


def is_called(file: str, name: str) -> bool:
    """Whether the name of a file ends with that of a mask."""
    stem = file.rsplit(".", 1)[0]
    while (shorter := _BEHIND.sub("", stem)) != stem:
        stem = shorter
    return bool(re.search(rf"(?:^|[_\-. ]){re.escape(name)}$", stem, re.IGNORECASE))


@dataclass(frozen=True, slots=True)
class Masking:
    """Which masks count.

    >>> [rule.values for rule in Masking(("scl=3,8-10",)).parsed]
    [(3, 8, 9, 10)]
    """

    rules: tuple[str, ...] = ()
    """As they are written: `NAME`, `NAME=VALUES` or `NAME=bits:BITS`."""
    grow: float = 0.0
    """Metres around what is hidden that are hidden too."""

    def __post_init__(self) -> None:
        """Raise ConfigError where there can be no such mask."""
        if not (math.isfinite(self.grow) and 0 <= self.grow <= 100_000):
            raise ConfigError(f"--mask-grow takes metres from 0 to 100,000; got {self.grow:g}")
        if self.grow and not self.rules:
            raise ConfigError("--mask-grow is about --mask; name a mask with it, such as --mask scl")
        object.__setattr__(self, "rules", tuple(self.rules))
        _ = self.parsed

    @property
    def parsed(self) -> tuple[MaskRule, ...]:
        """The rules that are meant."""
        return tuple(rule for text in self.rules for rule in _parse(text))


def _parse(text: str) -> tuple[MaskRule, ...]:
    name, equals, numbers = text.partition("=")
    name = name.strip()
    if not equals:
        if name.lower() not in KNOWN:
            raise ConfigError(
                f"--mask {text}: known are {', '.join(KNOWN)}; of any other say which numbers hide the "
                f"ground: --mask NAME=1,3-5 or --mask NAME=bits:0,2"
            )
        return KNOWN[name.lower()]
    of_bits = numbers.startswith("bits:")
    found = _numbers(numbers.removeprefix("bits:"), 31 if of_bits else _LARGEST, text)
    if not name:
        raise ConfigError(f"--mask {text}: names no band or file; give --mask NAME=VALUES")
    return (MaskRule(name, bits=found) if of_bits else MaskRule(name, values=found),)


def _numbers(text: str, most: int, written: str) -> tuple[int, ...]:
    """`3,8-10` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= most or last - first > 1 << 16:
            raise ConfigError(
                f"--mask {written}: {part.strip()!r} is no number from 0 to {most}, nor a range; give such "
                f"as 3,8-10 or bits:3,4"
            )
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))
