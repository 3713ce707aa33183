"""Options that several verbs share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from citycover.model.precision import Precision as PrecisionName

Scene = Annotated[
    list[str], typer.Argument(metavar="SCENE...", help="Raster files of one place; bands are found by name.")
]

Model = Annotated[
    str | None,
    typer.Option(help="Model file, or a built-in name; without it, the built-in that fits the bands."),
]

Bands = Annotated[
    str | None,
    typer.Option(
        help="Bands in the order of the model: names (B04,B03,B02,B08) or numbers over all files (1,2,3,4)."
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
    str, typer.Option(help="auto, fp32, bf16 or fp16; auto takes bf16 where only near-ties flip.")
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

Resample = Annotated[
    bool, typer.Option("--resample", help="Read at the model's GSD where the scene's is outside its limits.")
]

AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Files (VRT, WMS) may name others across the network.")
]

AllowPath = Annotated[
    list[str] | None,
    typer.Option(metavar="DIR", help="Files may name others below DIR too, not only below their folder."),
]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a finished product.")]


def check_choice(name: str, value: str, known: tuple[str, ...]) -> str:
    """The value, if it is a known one.

    Raises:
        ConfigError: it is not.
    """
    from citycover.errors import ConfigError

    if value not in known:
        raise ConfigError(f"{name} takes {', '.join(known)}; got {value!r}")
    return value


def check_precision(value: str) -> PrecisionName | Literal["auto"]:
    """One that a network can run in, or auto.

    Raises:
        ConfigError: it is not.
    """
    from citycover.model.precision import PRECISIONS

    known: tuple[PrecisionName | Literal["auto"], ...] = ("auto", *PRECISIONS)
    check_choice("--precision", value, known)
    return known[known.index(value)]
