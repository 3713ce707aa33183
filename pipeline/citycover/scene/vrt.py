"""What a VRT says of its sources: XML in, places and names out. Opens nothing but the text.

GDAL compares names of elements and attributes without case, so they are folded before anything is looked for.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from citycover.errors import SceneError
from citycover.files.local import is_path

Rect = tuple[float, float, float, float]
"""x, y, width, height in pixels, as GDAL writes it."""

_MOSAIC_SOURCES = frozenset(
    {"simplesource", "complexsource", "averagedsource", "kernelfilteredsource", "nodatafrommasksource"}
)

_PART = re.compile(r'([A-Za-z0-9_]+(?::\d+)?:"?)([^"]+?)("?(?::[^/\\]*)?)')
"""A connection string of a part of a file: what stands before, the file, what stands behind."""

_LARGEST = 256 << 20
"""Bytes of a VRT's text."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that a VRT reads."""

    path: str
    """Absolute path or connection string."""
    band: int | None
    """Band of the VRT that it fills, from 1; None: all of them (a mask, a warp, anything else)."""
    of_mask: bool = False
    """True: the source's mask is read, not its pixels."""
    placed: bool = False
    """True: `source` and `target` tell what is read and where it comes to lie."""
    source: Rect | None = None
    """None: all of the source."""
    target: Rect | None = None
    """None: all of the VRT."""
    size: tuple[int, int] | None = None
    """(y, x) that the VRT expects of the source; None: it says nothing."""
    dtype: str | None = None
    """GDAL name of the pixel type that it expects."""
    from_band: int = 1
    raw: bool = False
    """True: bytes of any file are read as pixels."""
    needed: bool = True
    """False: pixels at full resolution can do without it, or it is no raster."""


def read_sources(path: str) -> tuple[Source, ...] | None:
    """The sources of a local VRT; None where the file is something else.

    Raises:
        SceneError: the text is too large, or declares entities.
    """
    local = Path(path)
    if not local.is_file():
        return None
    with local.open("rb") as file:
        head = file.read(4096)
        # GDAL looks for the element anywhere in the first bytes.
        if b"<vrtdataset" not in head.lower():
            return None
        text = head + file.read(_LARGEST)
    if len(text) > _LARGEST:
        raise SceneError(f"{path} is a VRT of more than {_LARGEST >> 20} MiB of text; split it into several")
    return parse_sources(text, str(local.absolute()))


def parse_sources(text: bytes, path: str) -> tuple[Source, ...]:
    """The sources that a VRT's text names, in order.

    Raises:
        SceneError: it is not XML, or declares entities.
    """
    if b"<!DOCTYPE" in text.upper():
        raise SceneError(f"{path} declares XML entities; a VRT needs none; remove the DOCTYPE")
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, hence no entities
    except ET.ParseError as error:
        raise SceneError(f"{path} is not a whole VRT ({error}); make it anew (gdalbuildvrt)") from None
    for element in root.iter():
        element.tag = str(element.tag).lower()
        element.attrib = {name.lower(): value for name, value in element.attrib.items()}
    where = os.path.realpath(path) if is_path(path) else path  # GDAL follows the link of a VRT
    overviews = frozenset(part for overview in root.iter("overview") for part in overview.iter())
    return tuple(_Reading(where.rpartition("/")[0], overviews).of_dataset(root))


@dataclass(frozen=True, slots=True)
class _Reading:
    folder: str
    overviews: frozenset[ET.Element]

    def of_dataset(self, root: ET.Element) -> Iterator[Source]:
        seen: set[ET.Element] = set()
        for number, band in enumerate(root.findall("vrtrasterband"), 1):
            index = int(band.get("band") or number)
            for part in band.iter():
                seen.add(part)
            yield from self.of_band(band, None if band.find("maskband") is not None else index)
        for rest in root.iter():
            if rest not in seen:
                yield from self.of_anything(rest)

    def of_band(self, band: ET.Element, index: int | None) -> Iterator[Source]:
        raw = "raw" in (band.get("subclass") or "").lower()
        placed: set[ET.Element] = set()
        for element in band:
            if element.tag in _MOSAIC_SOURCES and (found := self.of_source(element, index)):
                placed.update(element.iter())
                yield found
        for element in band.iter():
            if element not in placed:
                yield from self.of_anything(element, raw=raw, band=index)

    def of_source(self, element: ET.Element, index: int | None) -> Source | None:
        name = element.find("sourcefilename")
        if name is None:
            return None
        expected = element.find("sourceproperties")
        band = (element.findtext("sourceband") or "1").strip()
        of_mask = band.lower().startswith("mask")
        digits = band.rpartition(",")[2]
        return Source(
            path=self.absolute(name),
            band=index,
            of_mask=of_mask,
            placed=True,
            source=_rect(element.find("srcrect")),
            target=_rect(element.find("dstrect")),
            size=_size(expected),
            dtype=expected.get("datatype") if expected is not None else None,
            from_band=int(digits) if digits.isdecimal() else 1,
        )

    def of_anything(
        self, element: ET.Element, *, raw: bool = False, band: int | None = None
    ) -> Iterator[Source]:
        """A name of a file anywhere else: warped, pansharpened and processed VRTs, raw bands, overviews."""
        argument = (element.get("name") or "").lower()
        named = element.tag in {"sourcefilename", "sourcedataset"} or (
            element.tag in {"option", "argument", "mdi"}
            and ("filename" in argument or argument.endswith("_dem"))
        )
        if named and (element.text or "").strip():
            needed = element.tag in {"sourcefilename", "sourcedataset"} and element not in self.overviews
            yield Source(self.absolute(element), band, raw=raw, needed=needed and not raw)

    def absolute(self, element: ET.Element) -> str:
        text = (element.text or "").strip()
        relative = (element.get("relativetovrt") or element.get("relative") or "0").strip().lower()
        if relative in {"1", "yes", "true", "on"}:
            if part := _PART.fullmatch(text):
                return f"{part[1]}{self.folder}/{part[2]}{part[3]}"
            return text if text.startswith("/") else f"{self.folder}/{text}"
        return text


def _rect(element: ET.Element | None) -> Rect | None:
    if element is None:
        return None
    try:
        rect = tuple(float(element.get(name) or "nan") for name in ("xoff", "yoff", "xsize", "ysize"))
    except ValueError:
        return None
    return (rect[0], rect[1], rect[2], rect[3]) if all(map(math.isfinite, rect)) else None


def _size(element: ET.Element | None) -> tuple[int, int] | None:
    if element is None:
        return None
    rows, cols = element.get("rasterysize"), element.get("rasterxsize")
    return (int(rows), int(cols)) if rows and cols and rows.isdecimal() and cols.isdecimal() else None
