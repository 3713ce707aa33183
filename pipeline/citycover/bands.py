"""Names of bands: which band of which file serves which band of a model's card. Names only, no files.

A band of a scene answers to names from four places, the most trustworthy first:

1. its description in the file, where that is a word known here (`red`, `near infrared`, `B08`, ...);
2. the naming rules of a product that is recognised by its file name: Sentinel-2, Landsat, HLS, NAIP
   (`m_4709963_se_14_1_...`: four bands are red, green, blue, near infrared, whatever the tags say) and Planet
   (`..._AnalyticMS`: blue, green, red, near infrared, although the files are tagged red, green, blue);
3. the colour interpretation: red, green, blue, near infrared, ...;
4. for files of one band, the last word of the file name (`...-WV03-R.tif`, `..._B02_60m.jp2`).

A bare `B4` means red to Sentinel-2 and to Landsat 8, near infrared to Landsat 7 and nothing certain
elsewhere: it is translated only where the sensor is known. `landsat` with no number is read as Landsat 8/9.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from citycover.errors import SceneError

_SYNONYMS = {
    "coastal": ("coastalaerosol", "aerosol", "ultrablue"),
    "blue": ("b",),
    "green": ("g",),
    "red": ("r",),
    "nir": ("n", "nearinfrared", "nearir", "infrared", "nir1"),
    "rededge": ("re",),
    "nir08": ("narrownir", "nirnarrow", "nira"),
    "swir16": ("swir1",),
    "swir22": ("swir2",),
    "pan": ("p", "panchromatic"),
}
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

_NUMBERED = re.compile(r"b(\d{1,2}|8a)")
_LANDSAT = re.compile(r"(?:^|[_\-.])l[cotem]0?([4-9])(?=_|\d{6})", re.IGNORECASE)
_LANDSAT_WORD = re.compile(r"(?:^|[_\-.])landsat[_\-]?([4-9])?(?![0-9])", re.IGNORECASE)
_HLS = re.compile(r"(?:^|[_\-.])hls[_\-.]([ls])30", re.IGNORECASE)
_S2_NAME = re.compile(r"(?:^|[_\-.])(?:s2[a-d]?_|t\d{2}[a-z]{3}_|sentinel-?2)", re.IGNORECASE)
_NAIP = re.compile(r"^m_\d{7}_[ns][ew]_\d{2}_", re.IGNORECASE)
_PLANET = re.compile(r"_3b_analyticms(?:_sr|_dn|_clip|_harmonized)*$", re.IGNORECASE)


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
    def label(self) -> str:
        """A word for messages and listings."""
        return self.title or (self.names[0] if self.names else f"band {self.index}")


def fold(name: str) -> str:
    """Lower case, letters and digits only, `B4` and `B04` the same, synonyms made one.

    >>> fold("Near Infrared"), fold("B4"), fold("R")
    ('nir', 'b04', 'red')
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if _NUMBERED.fullmatch(plain) and plain != "b8a":
        plain = f"b{int(plain[1:]):02d}"
    return _CANONICAL.get(plain, plain)


def name_bands(
    file: str, descriptions: Sequence[str | None], colours: Sequence[str]
) -> tuple[SceneBand, ...]:
    """Find the names of all bands of one file (see the module's text for the rules).

    Args:
        file: name of the file, without its folder.
        descriptions: one a band.
        colours: GDAL's colour interpretation of each band, lower case.
    """
    stem = file.split(".", 1)[0] if file.count(".") == 1 else file.rsplit(".", 1)[0]
    ordered = _product_order(stem, len(colours))
    if ordered and not any(fold(d or "") in _WORDS for d in descriptions):
        return tuple(
            SceneBand(file, i, (name,), title=descriptions[i - 1] or name)
            for i, name in enumerate(ordered, 1)
        )
    table = _sensor_table(stem, descriptions)
    bands = []
    for i, (description, colour) in enumerate(zip(descriptions, colours, strict=True), 1):
        words = [description or ""]
        if not _is_known(words[0], table) and colour in _COLOURS:
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
    if count == 4 and _PLANET.search(stem):
        return ("blue", "green", "red", "nir")
    return ()


def _sensor_table(stem: str, descriptions: Sequence[str | None]) -> dict[str, str] | None:
    """What B1, B2, ... mean in this file; None where that is not certain."""
    if hls := _HLS.search(stem):
        return _OLI if hls[1].lower() == "l" else _SENTINEL2
    if landsat := _LANDSAT.search(stem) or _LANDSAT_WORD.search(stem):
        return _OLI if (landsat[1] or "8") in "89" else _TM
    # Two digits and B8A are Sentinel-2's own way of writing; a bare B4 needs the file name to say so.
    written = [_last_word(stem), *(d or "" for d in descriptions)]
    if _S2_NAME.search(stem) or any(re.fullmatch(r"B0\d|B8A", w, re.IGNORECASE) for w in written):
        return _SENTINEL2
    return None


def _last_word(stem: str) -> str:
    """`T29UNU_20221005T115411_B02_60m` -> `B02`, `sr_b4_20200829` -> `b4`."""
    words = [w for w in re.split(r"[_\-. ]+", stem) if w]
    while len(words) > 1 and re.fullmatch(r"\d+m|\d{8}(T\d{6})?", words[-1]):
        words.pop()
    return words[-1] if len(words) > 1 else ""


def match_bands(model: str, wanted: Sequence[tuple[str, ...]], scene: Sequence[SceneBand]) -> tuple[int, ...]:
    """Find by name the band of the scene that serves each band of a card.

    Args:
        model: name of the model, for messages.
        wanted: the names that each of the card's bands answers to, the canonical one first.
        scene: bands of all files in order.

    Returns:
        Positions in `scene`, in the order of `wanted`.

    Raises:
        SceneError: bands are missing, or more than one answers to the same name.
    """
    if len(wanted) == len(scene) == 1 and not scene[0].names:
        return (0,)  # one is needed and one is there, and nothing says that it is another
    found: list[int | None] = []
    for entry in wanted:
        ranked = sorted((rank, i) for i, band in enumerate(scene) if (rank := _rank(entry, band)) is not None)
        best = [i for rank, i in ranked if rank == ranked[0][0]]
        if len(best) > 1:
            places = " and ".join(f"band {scene[i].index} of {scene[i].file} (number {i + 1})" for i in best)
            raise SceneError(
                f"{places} both answer to '{entry[0]}', which model '{model}' needs once; "
                f"choose with --bands, one name or number for each of {_list(wanted)}"
            )
        found.append(best[0] if best else None)
    if None in found:
        raise SceneError(_missing(model, wanted, scene, found))
    return tuple(i for i in found if i is not None)


def _rank(entry: tuple[str, ...], band: SceneBand) -> int | None:
    """How well a band serves an entry: position of the name in the entry, substitutes last."""
    folded = [fold(n) for n in entry]
    plain = [name for name in band.literals if not _NUMBERED.fullmatch(name)]  # a bare B4 may be anything
    exact = [k for k, name in enumerate(folded) if name in band.names or (not band.names and name in plain)]
    if exact:
        return exact[0]
    spare = [k for k, name in enumerate(folded) if name in band.substitutes]
    return len(folded) + spare[0] if spare else None


def _missing(
    model: str, wanted: Sequence[tuple[str, ...]], scene: Sequence[SceneBand], found: Sequence[int | None]
) -> str:
    lacking = [entry[0] for entry, i in zip(wanted, found, strict=True) if i is None]
    unnamed = [i for i, b in enumerate(scene) if not (b.alpha or b.names or i in found)]
    if len(unnamed) < len(lacking):
        unnamed += [i for i, b in enumerate(scene) if b.alpha and i not in found]
    have = f"scene has {len(scene)} band{'s' * (len(scene) > 1)} ({', '.join(_words(scene))})"
    need = f"model '{model}' needs {_list(wanted)} and nothing answers to {', '.join(lacking)}"
    if len(unnamed) >= len(lacking):
        spare = iter(unnamed)
        guess = ",".join(str((next(spare) if i is None else i) + 1) for i in found)
        remedy = (
            f"if the bands do lie in that order, pass --bands {guess}; else give the numbers that are right"
        )
    else:
        remedy = "give the files that hold them, or choose another model"
    return f"{have}; {need}; {remedy}"


def _words(scene: Sequence[SceneBand]) -> list[str]:
    words = ["alpha" if b.alpha else "unnamed" if not (b.names or b.title) else b.label for b in scene]
    return words if len(words) <= 16 else [*words[:15], "..."]


def _list(wanted: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(entry[0] for entry in wanted)


def pick_bands(
    chosen: Sequence[str], wanted: Sequence[tuple[str, ...]], scene: Sequence[SceneBand], model: str
) -> tuple[int, ...]:
    """Follow `--bands`: one name or number (from 1, over all files in order) for each band of a card.

    The first entry serves the card's first band, whatever it is called; a band may be named twice.

    Returns:
        Positions in `scene`.

    Raises:
        SceneError: another count than the card's, an unknown name, a name that means several bands.
    """
    if wanted and len(chosen) != len(wanted):
        got = f"--bands names {len(chosen)} band{'s' * (len(chosen) != 1)} ({','.join(chosen)})"
        raise SceneError(
            f"{got}; model '{model}' needs {len(wanted)}: {_list(wanted)}; give one for each, in that order"
        )
    return tuple(_pick(word.strip(), scene) for word in chosen)


def _pick(word: str, scene: Sequence[SceneBand]) -> int:
    if word.isdecimal():
        if not 1 <= int(word) <= len(scene):
            raise SceneError(
                f"--bands asks for band {word}; the scene has {len(scene)}, numbered from 1 over all files "
                f"in the order given: {', '.join(_words(scene))}"
            )
        return int(word) - 1
    name = fold(word)
    for known in (
        lambda b: word.lower() == b.title.lower(),
        lambda b: name in b.literals,
        lambda b: name in b.names,
        lambda b: name in b.substitutes,
    ):
        hits = [i for i, band in enumerate(scene) if known(band)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            numbers = ", ".join(str(i + 1) for i in hits)
            raise SceneError(
                f"--bands {word}: bands number {numbers} of the scene all answer to it; "
                f"use the number of the one you mean"
            )
    raise SceneError(
        f"--bands {word}: no band of the scene answers to it; it has {', '.join(_words(scene))}; "
        f"use one of these names, or numbers from 1 to {len(scene)}"
    )
