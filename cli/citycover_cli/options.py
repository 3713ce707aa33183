"""Options that several verbs share, said once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import typer

from citycover.errors import ConfigError
from citycover.evidence.request import LabelRequest
from citycover.job import request
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover.scene.measure import Measure
from citycover.scene.trust import Trust

Scene = Annotated[
    list[str],
    typer.Argument(metavar="SCENE...", help="Raster files: bands of one place, or sheets of several."),
]

Map = Annotated[
    str,
    typer.Argument(metavar="MAP", help="Product (folder, or s3://BUCKET/PREFIX), or a raster of classes."),
]

MapLegend = Annotated[str | None, typer.Option(help="Of a map that is no product: name or .toml file.")]

RecipeChanges = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: epochs=5.")
]

TrainingSeed = Annotated[int, typer.Option(min=0, help="Chips, augmentation and first weights.")]

CitySeed = Annotated[int, typer.Option(min=0, help="Another seed is another city.")]

Zones = Annotated[
    Path | None, typer.Option(help="Polygons (GeoJSON, GPKG, ...) to reckon in, too, in any CRS.")
]

ZonesBy = Annotated[str | None, typer.Option("--by", help="Column that names the zones; else numbers.")]

Model = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|NAME[=WEIGHT]",
        help="Model file, or a built-in name; several are averaged; without it, the built-in that fits the "
        "bands.",
    ),
]

Tta = Annotated[
    str,
    typer.Option(
        "--tta",
        metavar="none|flips|d4",
        help="Map each window turned, too, and average: 4 or 8 times the computing.",
    ),
]

RequireHash = Annotated[
    str | None,
    typer.Option(metavar="SHA256", help="Run the model only if its file has this sha256 (8 digits or more)."),
]

SkipFinished = Annotated[
    bool, typer.Option("--skip-finished", help="Done at once where this very product is finished.")
]

OnEnd = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND|URL",
        help="Told how it ended, well or not, as JSON: on stdin of a command, or posted to an address.",
    ),
]

Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.prom|[HOST]:PORT",
        help="Metrics for Prometheus: into a text file, or served while it runs.",
    ),
]

Otel = Annotated[
    bool,
    typer.Option("--otel", help="Spans of OpenTelemetry, sent where OTEL_EXPORTER_OTLP_ENDPOINT says."),
]

Bands = Annotated[
    str | None,
    typer.Option(
        help="Bands in the order of the model: names (B04,B03,B02,B08) or numbers (1,2,3,4) over the files "
        "of a place."
    ),
]

Nodata = Annotated[
    float | None, typer.Option(help="Digital number of invalid pixels, instead of the files' tags.")
]

Aoi = Annotated[
    Path | None, typer.Option(help="Map inside the polygons of this file only (GeoJSON, GPKG, ...).")
]

Bbox = Annotated[
    str | None,
    typer.Option(help="Map inside west,south,east,north only: degrees, or the scene's CRS where no degrees."),
]

Window = Annotated[int | None, typer.Option(min=1, help="Longest window side in pixels.")]

Trim = Annotated[int | None, typer.Option(min=0, help="Pixels at window edges that never vote.")]

Feather = Annotated[int | None, typer.Option(min=0, help="Pixels over which neighbouring windows hand over.")]

Batch = Annotated[int | None, typer.Option(min=1, help="Windows that go through the network together.")]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]

Precision = Annotated[
    str,
    typer.Option(
        help="auto, fp32, tf32 (GPUs), bf16 or fp16; auto: the fastest in which only near-ties flip."
    ),
]

Form = Annotated[
    str,
    typer.Option(
        help="auto, torchscript, cudnn (GPUs), openvino (extra, processors), aotinductor (needs a compiler) "
        "or tensorrt (extra, GPUs); auto takes what is known to be faster here where only near-ties flip."
    ),
]

Threads = Annotated[int | None, typer.Option(min=1, help="Threads to compute and to decode with.")]

Memory = Annotated[float | None, typer.Option(min=0.1, help="GiB that a process of the run may hold.")]

Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes on this machine; on a GPU node, one a device.")
]

Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDR", help="Dask scheduler (tcp://HOST:8786); its workers see the same files."),
]

Work = Annotated[
    str | None,
    typer.Option(
        metavar="s3://...",
        help="Keep unfinished blocks below this prefix of a bucket: workers share no folder, and another "
        "machine can go on.",
    ),
]

Labels = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE|NAME",
        help="Labels of the place, as evidence beside the network: a raster, or a product by name "
        "(worldcover, esri:2021, glc_fcs30); again for each further one.",
    ),
]

LabelsLegend = Annotated[
    str | None,
    typer.Option(
        help="Legend of --labels: NAME, NAME:TABLE or a .toml file; else that the model learned from."
    ),
]

LabelsTrust = Annotated[
    str,
    typer.Option(help="How far --labels are trusted: 0 to 1, or auto: as far as the network bears them out."),
]

Change = Annotated[
    bool,
    typer.Option(
        "--change", help="Look where the place outlived --labels, trust them no more there: change.tif."
    ),
]

Resample = Annotated[
    bool, typer.Option("--resample", help="Read at the model's GSD where the scene's is outside its limits.")
]

ScaleOption = Annotated[
    float | None,
    typer.Option("--scale", help="What numbers mean: scale * number + offset, in the unit of the model."),
]

OffsetOption = Annotated[float | None, typer.Option("--offset", help="See --scale.")]

UnitOption = Annotated[
    str | None, typer.Option("--unit", help="Of --scale: dn, reflectance, dB or m; else that of the model.")
]

Overlap = Annotated[
    str | None,
    typer.Option(help="Where sheets overlap: first, newest, nearest-centre or feather; else the first."),
]

Grid = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|EPSG:CODE[/SIZE]",
        help="Grid that sheets are laid onto: as that of a raster, or a CRS; else that of most sheets.",
    ),
]

Resampling = Annotated[
    str | None,
    typer.Option(
        help="Sheets of another grid: nearest, bilinear, cubic or average; else bilinear, and averaged where "
        "they are finer."
    ),
]

Composite = Annotated[
    str | None,
    typer.Option(
        help="Several dates of a place, pixel by pixel: latest, median or best of the valid ones, or "
        "mean-probability: each is mapped, and probabilities are averaged."
    ),
]

Mask = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        metavar="NAME[=VALUES]",
        help="Nodata where a band of the files says so: scl, qa_pixel, fmask, udm2, or NAME=3,8-10, "
        "NAME=bits:3,4; give several.",
    ),
]

MaskGrow = Annotated[
    float, typer.Option(metavar="METRES", help="Around what --mask hides, nodata too, this far.")
]

AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Files (VRT, WMS) may name others across the network.")
]

AllowPath = Annotated[
    list[str] | None,
    typer.Option(metavar="DIR", help="Files may name others below DIR too, not only below their folder."),
]

IntoReport = Annotated[
    bool, typer.Option("--report", help="Bring the result into the report.html of the product, too.")
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a finished product.")]


Compress = Annotated[str, typer.Option(help="Codec of the COGs: zstd, or deflate for old readers.")]

Format = Annotated[
    str,
    typer.Option("--format", help="cog, or cog,zarr: one landcover.zarr of all layers beside the COGs."),
]

Restart = Annotated[bool, typer.Option("--restart", help="Drop an unfinished run instead of resuming it.")]

VerifySeams = Annotated[
    bool, typer.Option("--verify-seams", help="Map patches on a shifted grid and report what differs.")
]


Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="Write the probability of each class: probabilities.tif.")
]

Entropy = Annotated[
    bool, typer.Option("--entropy", help="Write how undecided the network was over all classes: entropy.tif.")
]

Second = Annotated[bool, typer.Option("--second", help="Write the second best class: second.tif.")]

Margin = Annotated[
    bool, typer.Option("--margin", help="Write the lead of the best class over the second: margin.tif.")
]


Disagreement = Annotated[
    bool,
    typer.Option(
        "--disagreement", help="Write how far several networks, or turned windows, differ: disagreement.tif."
    ),
]


def check_choice(name: str, value: str, known: tuple[str, ...]) -> str:
    """The value, if it is a known one.

    Raises:
        ConfigError: it is not.
    """
    if value not in known:
        raise ConfigError(f"{name} takes {', '.join(known)}; got {value!r}")
    return value


def split_bands(text: str | None) -> tuple[str, ...] | None:
    """`B4,B3,B2` as a tuple; None stays None.

    Raises:
        ConfigError: it names nothing, as an empty variable of a script does.
    """
    if text is None:
        return None
    if not (parts := tuple(part.strip() for part in text.split(",") if part.strip())):
        raise ConfigError("--bands is empty; name bands or numbers, or leave it out")
    return parts


def _parse_bbox(text: str | None) -> tuple[float, ...] | None:
    """`west,south,east,north` as numbers.

    Raises:
        ConfigError: they are no numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--bbox takes west,south,east,north as numbers, got {text!r}") from None


def reading(
    bands: Bands = None,
    nodata: Nodata = None,
    scale: ScaleOption = None,
    offset: OffsetOption = None,
    unit: UnitOption = None,
    overlap: Overlap = None,
    grid: Grid = None,
    resampling: Resampling = None,
    composite: Composite = None,
    mask: Mask = None,
    mask_grow: MaskGrow = 0.0,
    allow_remote: AllowRemote = False,
    allow_path: AllowPath = None,
) -> request.Imagery:
    """The options of Imagery but for its files: how images are read, whichever they are."""
    measure = None
    if any(part is not None for part in (scale, offset, unit)):
        given = 1.0 if scale is None else scale, 0.0 if offset is None else offset
        measure = Measure(*given, unit)  # type: ignore[arg-type]  # looked at there
    return request.Imagery(
        (),
        split_bands(bands),
        nodata,
        trust=trust_of(allow_remote, allow_path),
        laying=Laying(overlap, grid, resampling, composite),  # type: ignore[arg-type]  # looked at there
        measure=measure,
        masking=Masking(tuple(mask or ()), mask_grow),
    )


def _with_options_of(base: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Names the options of another function in the signature of one that hands them on to it."""

    def named(make: Callable[..., Any]) -> Callable[..., Any]:
        own, others = (inspect.signature(one, eval_str=True) for one in (make, base))
        kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        make.__signature__ = own.replace(  # type: ignore[attr-defined]
            parameters=[*kept, *others.parameters.values()]
        )
        return make

    return named


@_with_options_of(reading)
def imagery(scene: Scene, resample: Resample = False, **seen: Any) -> request.Imagery:
    """The options of Imagery: those of `reading`, and two more."""
    return replace(reading(**seen), files=tuple(scene), resample=resample)


def trust_of(allow_remote: bool, allow_path: list[str] | None) -> Trust:
    """Which files files may name, as two options say it."""
    return Trust(allow_remote, tuple(Path(folder) for folder in allow_path or ()))


def where(aoi: Aoi = None, bbox: Bbox = None) -> request.Where:
    """The options of Where."""
    return request.Where(aoi, _parse_bbox(bbox))


def engine(
    window: Window = None,
    trim: Trim = None,
    feather: Feather = None,
    batch: Batch = None,
    device: Device = "auto",
    precision: Precision = "auto",
    form: Form = "auto",
    threads: Threads = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    work: Work = None,
) -> request.EngineOptions:
    """The options of EngineOptions; how large blocks are is not the command line's business."""
    return request.EngineOptions(
        window=window,
        trim=trim,
        feather=feather,
        batch=batch,
        device=device,
        precision=precision,  # type: ignore[arg-type]  # looked at there
        form=form,  # type: ignore[arg-type]  # looked at there
        threads=threads,
        memory=memory,
        workers=workers,
        scheduler=scheduler,
        work=work,
    )


def product(
    compress: Compress = "zstd",
    formats: Format = "cog",
    overwrite: Overwrite = False,
    restart: Restart = False,
    verify_seams: VerifySeams = False,
) -> request.ProductOptions:
    """The options of ProductOptions."""
    kinds = tuple(part.strip() for part in formats.split(","))
    return request.ProductOptions(compress, kinds, overwrite, restart, verify_seams)


def labels(
    labels: Labels = None,
    labels_legend: LabelsLegend = None,
    trust: LabelsTrust = "auto",
    change: Change = False,
) -> LabelRequest | None:
    """The options of LabelRequest; None where no labels are named."""
    try:
        number = None if trust == "auto" else float(trust)
    except ValueError:
        raise ConfigError(f"--trust takes auto or a number from 0 to 1, got {trust!r}") from None
    if not labels and (labels_legend is not None or number is not None or change):
        raise ConfigError(
            "--labels-legend, --trust and --change are about --labels; name label files with it"
        )
    return LabelRequest(tuple(labels), labels_legend, number, change) if labels else None


def layers(
    probabilities: Probabilities = False,
    entropy: Entropy = False,
    second: Second = False,
    margin: Margin = False,
    disagreement: Disagreement = False,
) -> tuple[str, ...]:
    """Names of layers beside the usual ones."""
    asked = {
        "probabilities": probabilities,
        "entropy": entropy,
        "second": second,
        "margin": margin,
        "disagreement": disagreement,
    }
    return tuple(name for name, wanted in asked.items() if wanted)


Reading = Annotated[request.Imagery, "without files"]
"""Of a verb that is given its images otherwise."""

Groups: TypeAlias = Mapping[object, tuple[str, Callable[..., Any]]]
"""By annotation of a keyword: the title of a group in --help, and what builds it of the options of its
signature."""

_GROUPS: Groups = {
    request.Imagery: ("Imagery", imagery),
    Reading: ("Imagery", reading),
    request.Where: ("Part of the scene", where),
    request.EngineOptions: ("Computing", engine),
    request.ProductOptions: ("Product", product),
    LabelRequest | None: ("Labels of the place", labels),
    tuple[str, ...]: ("Further layers", layers),
}


def _titled(parameter: inspect.Parameter, title: str) -> inspect.Parameter:
    """An option below a title of --help; arguments have one of their own."""
    if get_origin(parameter.annotation) is not Annotated:
        return parameter
    kind, said = get_args(parameter.annotation)
    if not isinstance(said, typer.models.OptionInfo):
        return parameter
    said = copy(said)
    said.rich_help_panel = title
    return parameter.replace(annotation=Annotated[kind, said])


def grouped(verb: Callable[..., None], more: Groups | None = None) -> Callable[..., None]:
    """Give a verb the options of the groups among its keywords, and the groups that they make.

    Args:
        verb: whose keywords may be annotated by a group.
        more: groups of this verb alone.
    """
    groups = {**_GROUPS, **(more or {})}
    signature = inspect.signature(verb, eval_str=True)
    makers = {p.name: groups[p.annotation] for p in signature.parameters.values() if p.annotation in groups}
    taken = {
        name: [_titled(p, title) for p in inspect.signature(make, eval_str=True).parameters.values()]
        for name, (title, make) in makers.items()
    }

    @wraps(verb)
    def run(**given: Any) -> None:
        for name, (_, make) in makers.items():
            given[name] = make(**{option.name: given.pop(option.name) for option in taken[name]})
        verb(**given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    # Shared groups come last in --help, those of the verb alone stand where it has them.
    every = sorted(signature.parameters.values(), key=lambda p: p.annotation in _GROUPS)
    parameters = [option.replace(kind=keyword) for p in every for option in taken.get(p.name, [p])]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run
