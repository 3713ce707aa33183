"""Files beside an image that say something of it, by the names under which GDAL looks for them.

    world files          `a.tfw`, `a.tifw`, `a.wld`, in small letters or large
    other places         `a.tab` (MapInfo), `a.prj`, headers of raw formats (`a.hdr`)
    GDAL's own           `a.tif.aux.xml`: place, nodata, names of bands, and what viewers keep there
    masks                `a.tif.msk`

Overviews (`.ovr`) change no pixel and are none of these; neither are statistics, which viewers leave in
`.aux.xml`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree as ET

from citycover.files.local import is_path

_OWN = ".aux.xml"

_LARGEST = 16 << 20
"""Bytes of an `.aux.xml` that is looked into."""

_KEPT_BY_VIEWERS = ("Histograms", "HistItem")

_KEYS_OF_VIEWERS = ("STATISTICS_", "PyramidResamplingType")


def sidecars_of(file: str) -> tuple[str, ...]:
    """Files that say where an image lies and what of it counts, there or not; in one order for all images.

    None of what lies across the network or in an archive: nothing is looked for there.
    """
    if not is_path(file):
        return ()
    path = Path(file).absolute()
    ending = path.suffix[1:].lower()
    worlds = (f"{ending[:1]}{ending[-1:]}w", f"{ending}w", "wld")
    cased = (*worlds, *(world.upper() for world in worlds), "tab", "TAB", "prj", "hdr")
    return (*(str(path.with_suffix(f".{one}")) for one in cased), f"{path}.msk", f"{path}{_OWN}")


def is_gdals_own(path: str | Path) -> bool:
    """Whether a file is one that GDAL keeps beside an image, and viewers write into."""
    return str(path).endswith(_OWN)


def meaning_of(path: Path) -> str:
    """What such a file says of the image, as a digest: two that differ in statistics alone say the same.

    Empty: nothing, or it is not there.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST)
    except FileNotFoundError:
        return ""
    if (root := _parsed(text)) is None:
        return hashlib.sha256(text).hexdigest()
    _clear(root)
    said = ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True) if len(root) else ""
    return hashlib.sha256(said.encode()).hexdigest() if said else ""


def _parsed(text: bytes) -> ET.Element | None:
    """None: it is none of GDAL's, or longer than was read."""
    if b"<!DOCTYPE" in text.upper():
        return None
    try:
        return ET.fromstring(text)  # noqa: S314 - no document type, hence no entities
    except ET.ParseError:
        return None


def _clear(element: ET.Element) -> None:
    """Take out what viewers keep, and what is empty without it."""
    for inner in list(element):
        _clear(inner)
        key = str(inner.get("key", ""))
        kept = inner.tag in _KEPT_BY_VIEWERS or key.startswith(_KEYS_OF_VIEWERS)
        if kept or (inner.tag in ("PAMRasterBand", "Metadata") and not len(inner)):
            element.remove(inner)
