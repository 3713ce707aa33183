"""`citycover demo`: a city, its map, and how good the map is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover_cli import options, talk
from citycover_cli.verbs.map_ import map_with_progress, print_summary

if TYPE_CHECKING:
    from citycover.accuracy import Confusion

HELP = """Draw a city, map it with a built-in model, compare the map with the truth, and say where to look."""


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")] = Path("demo"),
    size: Annotated[int, typer.Option(min=64, help="Side of the city in pixels of 1 m.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another city.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
    log_file: options.LogFile = None,
) -> None:
    """See HELP."""
    talk.set_up_logging(verbose, quiet, log_file)
    from citycover.accuracy import compare_rasters
    from citycover.legend import read_legend
    from citycover.product import MapRequest
    from citycover.synth import write_city

    begin = time.perf_counter()
    city, out = folder / "city", folder / "product"
    with talk.show_progress("drawing a city", 1.0, quiet or as_json) as progress:
        write_city(city, size, seed, progress=progress.update, overwrite=overwrite)
    request = MapRequest(scene=(str(city / "image.tif"),), out=out, overwrite=overwrite)
    product = map_with_progress(request, quiet or as_json)
    ours, theirs = read_legend("landcover5"), read_legend("city")
    table = ours.table_from("city")
    truth = city / "truth.tif"
    coarse = compare_rasters(city / "labels_10m.tif", truth, ours, table, table)
    mapped = compare_rasters(out / "landcover.tif", truth, ours, None, table)
    seconds = time.perf_counter() - begin
    if as_json:
        talk.print_json(
            {
                "coarse_labels": coarse.report(ours),
                "map": mapped.report(ours),
                "seconds": round(seconds, 1),
                "product": str(out),
            }
        )
    elif not quiet:
        print_summary(product)
        _print_accuracy({"coarse labels (10 m)": coarse, "map (1 m, no training)": mapped}, ours)
        typer.echo(f"truth legend {theirs.name}, merged to {ours.name}; {talk.duration(seconds)} in all")


def _print_accuracy(results: dict[str, Confusion], legend: Any) -> None:
    typer.echo("compared with the truth, intersection over union in %")
    names = [c.name for c in legend.classes]
    typer.echo("  " + " " * 24 + "".join(f"{name[:16]:>18}" for name in [*names, "mean", "accuracy"]))
    for label, confusion in results.items():
        numbers = [*confusion.iou, confusion.miou, confusion.overall_accuracy]
        typer.echo(f"  {label:<24}" + "".join(f"{100 * n:>18.1f}" for n in numbers))
