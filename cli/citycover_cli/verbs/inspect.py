"""`citycover inspect`: what a scene or a model is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover_cli import options
from citycover_cli.cards import model_facts, print_model
from citycover_cli.logs import logger
from citycover_cli.output import holes_of, print_json, print_table
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover.files.remote import Place
    from citycover.model.archive import ModelFile
    from citycover.product.record import Given
    from citycover.scene.file import FileInfo
    from citycover.scene.trust import Trust

HELP = (
    """Look at a scene (bands, grid, masks), a model (card, sha256, licence) or a product (what made it)."""
)

_MODEL_ENDINGS = (".pt", ".pt2")


@talking
def run(
    what: Annotated[
        list[str],
        typer.Argument(metavar="SCENE|MODEL|PRODUCT...", help="Raster files, models, product folders."),
    ],
    statistics: Annotated[bool, typer.Option(help="Read a decimated image for statistics.")] = True,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    scenes, facts = [], []
    for one in what:
        if (model := _model_of(one)) is not None:
            facts.append(_model_told(model, talk.as_json))
        elif (record := _record_of(one)) is not None:
            facts.append(_product_told(record, talk.as_json))
        else:
            scenes.append(one)
    if scenes:
        trust = options.trust_of(allow_remote, allow_path)
        facts += _scene_told(scenes, statistics, talk.as_json, trust)
    if talk.as_json:
        print_json(facts if scenes or len(facts) > 1 else facts[0])


def _model_of(what: str) -> ModelFile | None:
    """A model by its name or the ending of its file; None: it is none."""
    from citycover.model.archive import read_model_file
    from citycover.model.builtin import NAMES, find_model

    return read_model_file(find_model(what)) if what in NAMES or what.endswith(_MODEL_ENDINGS) else None


def _model_told(model: ModelFile, as_json: bool) -> dict[str, Any]:
    """What a model is: said to people, or else as plain values."""
    if not as_json:
        print_model(model)
    if model.card.untrained:
        logger.warning("its weights are random: a map by it means nothing; give it weights")
    return model_facts(model)


def _record_of(what: str) -> Place | None:
    """run.json of a product; None: it is none."""
    from citycover.files.folders import is_zarr
    from citycover.files.remote import RemotePath, place_of
    from citycover.product.open import find_raster

    if what.startswith("s3://"):
        place = place_of(what)
        if isinstance(place, RemotePath) and (is_zarr(place) or place.is_file()):
            return None
        find_raster(place)  # raises where it is none
        return place / "run.json"
    run_ = Path(what) / "run.json"
    return run_ if run_.is_file() else None


def _product_told(path: Place, as_json: bool) -> dict[str, Any]:
    """What run.json of a product says: said to people, or else as plain values."""
    from citycover.product.record import read_record

    record = read_record(path)
    if as_json:
        return record.facts()
    made, holes = record.timing.finished, len(record.holes)
    rows = [
        ("model", f"{record.given.model.name}, {record.standing}, {record.evidence}"),
        ("imagery", "\n".join(given.path for given in record.given.inputs)),
        ("taken", _taken(record.given)),
        *([("not there", f"{', '.join(record.given.filled)}: filled")] if record.given.filled else []),
        ("made", "not said" if made is None else made.isoformat(timespec="seconds")),
        ("classes", ", ".join(f"{name} {share:.1%}" for name, share in record.shares.items())),
        ("holes", holes_of(holes) if holes else "none"),
        ("warnings", "\n".join(record.warnings) or "none"),
    ]
    print_table(str(path.parent), rows)
    return record.facts()


def _taken(given: Given) -> str:
    """When imagery was taken, and what became of several dates."""
    if given.dates:
        return f"{given.composite} of {', '.join(given.dates)}"
    return " to ".join(filter(None, (given.start, given.time))) or "not said"


def _scene_told(paths: list[str], statistics: bool, as_json: bool, trust: Trust) -> list[dict[str, Any]]:
    """What files of scenes are: said to people, or else as plain values."""
    from citycover.scene.file import describe_files, lost_sources

    files = describe_files(paths, trust, opened=True)
    if lost := lost_sources(files):
        logger.warning(lost)
    facts = [
        _file_facts(info) | (_statistics(info) if statistics and not info.obstacle else {}) for info in files
    ]
    for fact in () if as_json else facts:
        rows = [(key.replace("_", " "), _say(value)) for key, value in fact.items() if key != "path"]
        print_table(str(fact["path"]), rows)
    return facts


def _file_facts(info: FileInfo) -> dict[str, Any]:
    from citycover.geometry.footprint import degrees_of

    facts: dict[str, Any] = {
        "path": info.path,
        "driver": info.driver,
        "shape": list(info.shape),
        "bands": [f"{b.index}: {b.label} ({d})" for b, d in zip(info.bands, info.dtypes, strict=True)],
        "crs": info.crs,
        "blocks": list(info.block),
        "compression": info.compression,
        "overviews": info.overviews,
        "validity": ", ".join(dict.fromkeys(info.masks)),
        "nodata": [v for v in dict.fromkeys(info.nodata) if v is not None],
        "numbers mean": _meanings(info),
        "known mask": _known_mask(info),
        "time": info.time,
    }
    if info.obstacle:
        facts["cannot be mapped"] = info.obstacle
    elif info.grid is not None:
        facts["gsd_m"] = None if info.gsd is None else round(info.gsd, 4)
        facts["bounds"] = [round(v, 3) for v in info.grid.boundingbox]
        place = degrees_of(info.grid)
        facts["west, south, east, north"] = (
            "no place on the Earth" if place is None else [round(v, 5) for v in place]
        )
    return facts


def _meanings(info: FileInfo) -> list[str] | str:
    """What numbers of each band mean, and what a model of reflectance is given; one line if all are alike."""
    from citycover.model.card import BandGroup
    from citycover.scene.measure import Measure, conversion

    reflective = BandGroup(bands=(("any",),), dtypes=("float32",), unit="reflectance", unit_scale=0.0001)
    lines = []
    for measure in info.measures:
        text = "nothing says so" if measure is None else measure.words
        if isinstance(measure, Measure) and measure.unit in {"reflectance", None}:
            gain, bias = conversion(info.name, measure, None, reflective)
            text += f"; a model of reflectance x 10000 is given {Measure(gain, bias).words}"
        lines.append(text)
    return lines[0] if len(set(lines)) == 1 else lines


def _known_mask(info: FileInfo) -> str | None:
    """The option that makes a mask of it."""
    from citycover.scene.masking import known_mask

    kind = known_mask(info.name)
    return None if kind is None else f"--mask {kind}"


def _statistics(info: FileInfo) -> dict[str, Any]:
    """Smallest, mean and largest digital number of each band, and the share of valid pixels."""
    from rasterio.errors import RasterioError

    from citycover.files.gdal import brief_reason
    from citycover.read.look import look_at

    try:
        look = look_at(info)
    except RasterioError as error:
        return {"statistics": f"cannot be read: {brief_reason(error)}"}
    if look is None:
        return {"statistics": "none: a look would take too long; make overviews (gdaladdo file)"}
    lines = [
        "no valid pixel" if band is None else f"{band[0]:g} .. {band[1]:.5g} .. {band[2]:g}"
        for band in look.bands
    ]
    return {"min .. mean .. max": lines, "valid": f"{look.valid:.1%}"}


def _say(value: Any) -> str:
    if isinstance(value, list):
        if value and all(isinstance(v, str) for v in value):
            return "\n".join(value)
        return (
            " x ".join(map(str, value))
            if value and all(isinstance(v, int) for v in value)
            else ", ".join(map(str, value)) or "none"
        )
    return "none" if value is None else str(value)
