"""Names of bands: which band of which file serves which band of a model's card. Names only, no files.

A band of a scene answers to names from four places, the most trustworthy first:

1. its description in the file, where that is a word known here (`red`, `near infrared`, `B08`, ...);
2. the naming rules of a product that is recognised by its file name: Sentinel-2, Landsat, HLS, NAIP
   (`m_4709963_se_14_1_...`: four bands are red, green, blue, near infrared, whatever the tags say) and Planet
   (`..._AnalyticMS`: blue, green, red, near infrared, although the files are tagged red, green, blue;
   `..._AnalyticMS_SR_8b` has eight);
3. the colour interpretation: red, green, blue, near infrared, ... (not of bands described as B2 or SR_B2:
   writers tag any three bands red, green, blue);
4. for files of one band, the last or only word of the file name (`...-WV03-R.tif`, `..._B02_60m.jp2`,
   `B02.tif`, `red.tif`).

A bare `B4` means red to Sentinel-2 and to Landsat 8, near infrared to Landsat 7 and nothing certain
elsewhere: it is translated only where the sensor is known. `landsat` with no number is read as Landsat 8/9.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SYNONYMS = {
    "coastal": ("coastalaerosol", "coastalblue", "aerosol", "ultrablue", "bandc"),
    "blue": ("b", "bandb"),
    "green": ("g", "bandg"),
    "yellow": ("bandy",),
    "red": ("r", "bandr"),
    "nir": ("n", "nearinfrared", "nearir", "infrared", "nir1", "nearir1", "nearinfrared1", "bandn"),
    "nir2": ("nearir2", "nearinfrared2", "bandn2"),
    "rededge": ("re", "bandre"),
    "nir08": ("narrownir", "nirnarrow", "nira"),
    "swir16": ("swir1",),
    "swir22": ("swir2",),
    "pan": ("p", "panchromatic", "bandp"),
}
"""By name; `band...` is how Maxar writes them (`BAND_N2`)."""

_CANONICAL = {other: name for name, others in _SYNONYMS.items() for other in others}

_COLOURS = frozenset({"red", "green", "blue", "nir", "coastal", "rededge", "swir", "pan"})

_WORDS = frozenset(_SYNONYMS) | {"rededge1", "rededge2", "rededge3", "vv", "vh", "hh", "hv", "cirrus"}

_SENTINEL2 = {
    "b01": "coastal", "b02": "blue", "b03": "green", "b04": "red", "b05": "rededge1", "b06": "rededge2",
    "b07": "rededge3", "b08": "nir", "b8a": "nir08", "b09": "watervapour", "b10": "cirrus", "b11": "swir16",
    "b12": "swir22",
}  # fmt: skip

_OLI = {
    "b01": "coastal", "b02": "blue", "b03": "green", "b04": "red", "b05": "nir", "b06": "swir16",
    "b07": "swir22", "b08": "pan", "b09": "cirrus", "b10": "lwir11", "b11": "lwir12",
}  # fmt: skip

_TM = {
    "b01": "blue", "b02": "green", "b03": "red", "b04": "nir", "b05": "swir16", "b06": "lwir",
    "b07": "swir22", "b08": "pan",
}  # fmt: skip

NUMBERED = re.compile(r"b(\d{1,2}|8a)")

_LANDSAT = re.compile(r"(?:^|[_\-.])l[cotem]0?([4-9])(?=_|\d{6})", re.IGNORECASE)

_LANDSAT_WORD = re.compile(r"(?:^|[_\-.])landsat[_\-]?([4-9])?(?![0-9])", re.IGNORECASE)

_HLS = re.compile(r"(?:^|[_\-.])hls[_\-.]([ls])30", re.IGNORECASE)

_S2_NAME = re.compile(r"(?:^|[_\-.])(?:s2[a-d]?_|t\d{2}[a-z]{3}_|sentinel-?2)", re.IGNORECASE)

_NAIP = re.compile(r"^m_\d{7}_[ns][ew]_\d{2}_", re.IGNORECASE)

_PLANET = re.compile(
    r"_3b_analyticms(?:_(?:sr|dn|8b|toar|harmonized|clip|reproject|file_format))*$", re.IGNORECASE
)

_PLANET_ORDERS = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "greeni", "green", "yellow", "red", "rededge", "nir"),
}
"""Of PlanetScope, by the number of bands; `greeni` is the narrower green that only eight have."""


@dataclass(frozen=True, slots=True)
class SceneBand:
    """One band of a scene as its names tell it."""

    file: str
    """File name without its folder, for messages."""
    index: int
    """Band number in the file, from 1."""
    names: tuple[str, ...]
    """Names it answers to, lower case without punctuation, the most telling first; empty: it has none."""
    substitutes: tuple[str, ...] = ()
    """Names it may serve where nothing answers to them directly (B8A for near infrared)."""
    literals: tuple[str, ...] = ()
    """What is written on it, folded: what a user may call it, whether or not its meaning is known."""
    alpha: bool = False
    """True: tagged as transparency."""
    title: str = ""
    """What the file itself calls it; empty: nothing."""

    @property
    def written(self) -> str:
        """Where it stands and what is written on it, for messages."""
        return (
            self.file if self.index == 1 and not self.title else f"{self.title or self.label} of {self.file}"
        )

    @property
    def label(self) -> str:
        """A word for messages and listings."""
        return self.title or (self.names[0] if self.names else f"band {self.index}")


def fold(name: str) -> str:
    """Lower case, letters and digits only, `B4` and `B04` the same, synonyms made one.

    >>> fold("Near Infrared"), fold("B4"), fold("R")
    ('nir', 'b04', 'red')
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if NUMBERED.fullmatch(plain) and plain != "b8a":
        plain = f"b{int(plain[1:]):02d}"
    return _CANONICAL.get(plain, plain)


def name_bands(
    file: str, descriptions: Sequence[str | None], colours: Sequence[str], files: Sequence[str] = ()
) -> tuple[SceneBand, ...]:
    """Find the names of all bands of one file (see the module's text for the rules).

    Args:
        file: name of the file, without its folder.
        descriptions: one a band.
        colours: GDAL's colour interpretation of each band, lower case.
        files: names of all files of the scene: `B11.tif` beside `B02.tif` is Sentinel-2's.
    """
    stem = _stem(file)
    ordered = _product_order(stem, len(colours))
    if ordered and not any(fold(d or "") in _WORDS for d in descriptions):
        return tuple(
            SceneBand(file, i, (name,), title=descriptions[i - 1] or name)
            for i, name in enumerate(ordered, 1)
        )
    table = _sensor_table(stem, descriptions, files)
    bands = []
    for i, (description, colour) in enumerate(zip(descriptions, colours, strict=True), 1):
        words = [description or ""]
        numbered = re.search(r"b\d{1,2}a?$", fold(words[0]))  # GDAL tags any three bands red, green, blue
        if not (_is_known(words[0], table) or numbered) and colour in _COLOURS:
            words.insert(0, colour)
        if len(colours) == 1:
            words.append(_last_word(stem))
        bands.append(_named(file, i, words, table, description or "", alpha=colour == "alpha"))
    return tuple(bands)


def _named(
    file: str, index: int, words: Sequence[str], table: dict[str, str] | None, title: str, *, alpha: bool
) -> SceneBand:
    names: tuple[str, ...] = ()
    substitutes: tuple[str, ...] = ()
    literals = tuple(dict.fromkeys(fold(word) for word in words if word))
    known = next((name for name in literals if _is_known(name, table)), None)
    if known:
        colour = table.get(known, known) if table else known
        names = (colour, known) if table is _SENTINEL2 and colour != known else (colour,)
        substitutes = ("nir",) if colour == "nir08" else ()
    return SceneBand(file, index, names, substitutes, literals, alpha, title)


def _is_known(word: str, table: dict[str, str] | None) -> bool:
    name = fold(word)
    return name in _WORDS or (table is not None and name in table)


def _product_order(stem: str, count: int) -> tuple[str, ...]:
    if count == 4 and _NAIP.match(stem):
        return ("red", "green", "blue", "nir")
    if _PLANET.search(stem):
        return _PLANET_ORDERS.get(count, ())
    return ()


def _stem(file: str) -> str:
    return file.rsplit(".", 1)[0]


def _sensor_table(
    stem: str, descriptions: Sequence[str | None], beside: Sequence[str]
) -> dict[str, str] | None:
    """What B1, B2, ... mean in this file; None where that is not certain."""
    if hls := _HLS.search(stem):
        return _OLI if hls[1].lower() == "l" else _SENTINEL2
    if landsat := _LANDSAT.search(stem) or _LANDSAT_WORD.search(stem):
        return _OLI if (landsat[1] or "8") in "89" else _TM
    # Two digits and B8A are Sentinel-2's own way of writing; a bare B4 needs the file name to say so.
    written = [_last_word(stem), *(d or "" for d in descriptions)]
    if NUMBERED.fullmatch(stem.lower()):
        written += [other for name in beside if NUMBERED.fullmatch((other := _stem(name)).lower())]
    if _S2_NAME.search(stem) or any(re.fullmatch(r"B0\d|B8A", w, re.IGNORECASE) for w in written):
        return _SENTINEL2
    return None


def _last_word(stem: str) -> str:
    """`T29UNU_20221005T115411_B02_60m` -> `B02`, `sr_b4_20200829` -> `b4`, `B02` -> `B02`."""
    words = [w for w in re.split(r"[_\-. ]+", stem) if w]
    while len(words) > 1 and re.fullmatch(r"\d+m|\d{8}(t\d{6})?|\(?(raw|clip|clipped)\)?", words[-1].lower()):
        words.pop()
    return words[-1] if words else ""
