"""Products by name: which files of a Sentinel-2 or Landsat product are bands, and what their numbers mean.

    Sentinel-2   MTD_MSIL1C.xml or MTD_MSIL2A.xml; of each granule every band at its finest resolution, SCL;
                 reflectance = (number + offset) / quantification, the offset since processing baseline 04.00
    Landsat      Collection 2: *_MTL.txt; surface reflectance of level 2, reflectance at the top of the
                 atmosphere of level 1 (by the sun's height at the scene's centre); QA_PIXEL

Sources: Sentinel-2 Products Specification Document 14.9; Landsat 8-9 Collection 2 Data Format Control Books.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from citycover.errors import SceneError
from citycover.scene.given import Given
from citycover.scene.members import Members, members_of

_SENTINEL2 = re.compile(r"(?:^|/)MTD_MSIL(1C|2A)\.xml$")

_S2_IMAGE = re.compile(
    r"GRANULE/(?P<granule>[^/]+)/IMG_DATA/(?:R\d+m/)?(?:[^/]*_)?(?P<band>B\d[\dA]|SCL)(?:_(?P<gsd>\d+)m)?\.jp2$"
)

_S2_BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
"""By the number that metadata give them."""

_S2_GSD = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B01": 60, "B09": 60, "B10": 60}
"""Metres of files whose name does not say; all others: 20."""

_MTL = re.compile(r"(?:^|/)([^/]+)_MTL\.txt$", re.IGNORECASE)

_MTL_LINE = re.compile(r'^\s*(\w+)\s*=\s*"?(.*?)"?\s*$', re.MULTILINE)

_LEVEL2_BAND = re.compile(r"_SR_B\d+\.TIF$", re.IGNORECASE)

_LEVEL1_BAND = re.compile(r"_B(\d+)\.TIF$", re.IGNORECASE)

_Measures = tuple[tuple[float, float, str], ...]
"""Scale, offset and unit, of each band; empty: as the name of the file says."""

_QA = re.compile(r"_QA_PIXEL\.TIF$", re.IGNORECASE)


def holds_product(folder: Path, depth: str = "") -> bool:
    """Whether a folder, or with the depth `*/` one in it, has metadata of a known product."""
    return any(True for name in ("MTD_MSIL??.xml", "*_MTL.txt") for _ in folder.glob(depth + name))


def tells_of_product(name: str) -> bool:
    """Whether a file is called as the metadata of a known product are."""
    return bool(_SENTINEL2.search(name) or _MTL.search(name))


def product_rasters(members: Members) -> list[Given]:
    """The bands and masks of the products in a folder or archive; empty where there are none.

    Raises:
        SceneError: a product lacks its bands, or its metadata cannot be understood.
    """
    found: list[Given] = []
    for name in members.names:
        if _SENTINEL2.search(name):
            found += _sentinel2(members, name)
        elif match := _MTL.search(name):
            found += _landsat(members, name, match[1])
    return found


def product_of(metadata: Path) -> list[Given]:
    """The bands and masks of the product that a file of metadata tells of; others may lie beside it.

    Raises:
        SceneError: as for `product_rasters`.
    """
    members = members_of(metadata.parent)
    match = _MTL.search(metadata.name)
    if match is None:
        return _sentinel2(members, metadata.name)
    return list(_landsat(members, metadata.name, match[1]))


def _sentinel2(members: Members, metadata: str) -> list[Given]:
    root = "".join(metadata.rpartition("/")[:2])
    finest: dict[tuple[str, str], tuple[int, str]] = {}
    for name in members.names:
        match = _S2_IMAGE.search(name)
        if match and name.startswith(root):
            band = match["band"]
            gsd = int(match["gsd"] or _S2_GSD.get(band, 20))
            key = match["granule"], band
            finest[key] = min(finest.get(key, (gsd, name)), (gsd, name))
    if not finest:
        raise SceneError(
            f"{members.place} has {metadata} and no images below GRANULE/*/IMG_DATA; fetch the whole product"
        )
    tags = _tags_of(members.read(metadata), f"{metadata} in {members.place}")
    measures = _reflectance(tags, metadata)
    time = next((text for key, _, text in tags if key == "PRODUCT_START_TIME"), None)
    return [
        Given(
            members.path(name),
            titles=(band,),
            time=time,
            measures=() if band == "SCL" else (measures[band],),
            nodata=None if band == "SCL" else 0.0,
        )
        for (_, band), (_, name) in sorted(finest.items())
    ]


_Tag = tuple[str, str, str]
"""Name, number of the band or empty, text."""


def _tags_of(text: bytes, what: str) -> list[_Tag]:
    if b"<!DOCTYPE" in text.upper():
        raise SceneError(f"{what} declares XML entities; metadata of a product do not; remove the DOCTYPE")
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, hence no entities
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two: encodings that nobody knows
        raise SceneError(f"{what} is no whole XML ({error}); fetch it again") from None
    return [
        (str(e.tag).rpartition("}")[2], e.get("band_id") or "", (e.text or "").strip()) for e in root.iter()
    ]


def _reflectance(tags: list[_Tag], metadata: str) -> Mapping[str, tuple[float, float, str]]:
    """Scale, offset and unit of each band."""
    try:
        whole = next(
            float(text)
            for key, _, text in tags
            if key in {"BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE"}
        )
        offsets = {
            _S2_BANDS[_place(number)]: float(text)
            for key, number, text in tags
            if key in {"BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"}
        }
    except (StopIteration, ValueError, IndexError):
        whole, offsets = 0.0, {}
    if not 0 < whole < math.inf or not all(map(math.isfinite, offsets.values())):
        raise SceneError(f"{metadata} does not say what numbers mean (QUANTIFICATION_VALUE); fetch it again")
    return {band: (1 / whole, offsets.get(band, 0.0) / whole, "reflectance") for band in _S2_BANDS}


def _place(number: str) -> int:
    """Of a band in the list; Python would count negative ones from the end."""
    if (place := int(number)) < 0:
        raise IndexError(number)
    return place


def _landsat(members: Members, metadata: str, scene: str) -> Iterator[Given]:
    own = [n for n in members.names if n.rpartition("/")[2].upper().startswith(f"{scene.upper()}_")]
    level2 = [name for name in own if _LEVEL2_BAND.search(name)]
    facts = dict(_MTL_LINE.findall(members.read(metadata).decode("utf-8", "replace")))
    day, clock = facts.get("DATE_ACQUIRED", ""), facts.get("SCENE_CENTER_TIME", "").partition(".")[0]
    time = f"{day}T{clock.rstrip('Z')}Z" if day and clock else day or None
    bands: dict[str, _Measures] = dict.fromkeys(level2, ()) or dict(_top_of_atmosphere(own, facts))
    if not bands:
        raise SceneError(
            f"{members.place} has {metadata} and no band whose reflectance it tells; fetch the whole product"
        )
    for name, measures in bands.items():
        yield Given(members.path(name), time=time, measures=measures, nodata=0.0)
    for name in filter(_QA.search, own):
        yield Given(members.path(name), time=time)


def _top_of_atmosphere(names: list[str], facts: Mapping[str, str]) -> Iterator[tuple[str, _Measures]]:
    """Bands of level 1, with scale, offset and unit."""
    for name in names:
        match = _LEVEL1_BAND.search(name)
        if match and f"REFLECTANCE_MULT_BAND_{match[1]}" in facts:
            try:
                numbers = [float(facts[f"REFLECTANCE_{kind}_BAND_{match[1]}"]) for kind in ("MULT", "ADD")]
                height = math.sin(math.radians(float(facts["SUN_ELEVATION"])))
            except (KeyError, ValueError):
                continue
            if height > 0 and all(map(math.isfinite, numbers)):
                yield name, ((numbers[0] / height, numbers[1] / height, "reflectance"),)
