"""`citycover demo`: the whole story, from a city nobody has mapped to a map and how good it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover_cli import options, talk
from citycover_cli.verbs.map_ import map_with_progress, print_summary
from citycover_cli.verbs.train import train_with_progress

if TYPE_CHECKING:
    from citycover.accuracy import Confusion
    from citycover.legend import Legend

HELP = """Draw a city, learn its land cover from 10 m labels, map it at 1 m, and compare map and truth.

DIR gets the city, the training with its model file, the product, and story.png: image, coarse labels, map
and truth side by side.
"""

_PANEL = 420
"""Pixels of a side in story.png, at most."""


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")] = Path("demo"),
    size: Annotated[int, typer.Option(min=64, help="Side of the city in pixels of 1 m.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another city.")] = 0,
    recipe: Annotated[str, typer.Option(help="How to train; see `citycover train`.")] = "l2hnet-light",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe: epochs=5.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
    log_file: options.LogFile = None,
) -> None:
    """See HELP."""
    talk.set_up_logging(verbose, quiet, log_file)
    from citycover.allocator import tune_allocator

    tune_allocator()  # before torch is imported
    from citycover.accuracy import compare_rasters
    from citycover.legend import read_legend
    from citycover.product import MapRequest
    from citycover.synth import write_city
    from citycover_models.data.pairs import ImageAndLabels
    from citycover_models.data.prepare import prepare_lessons
    from citycover_models.recipe import read_recipe
    from citycover_models.train import TrainRequest

    begin, silent = time.perf_counter(), quiet or as_json
    city, training, out = folder / "city", folder / "training", folder / "product"
    image, labels, truth = (city / name for name in ("image.tif", "labels_10m.tif", "truth.tif"))
    with talk.show_progress("drawing a city", 1.0, silent) as progress:
        write_city(city, size, seed, progress=progress.update, overwrite=overwrite)
    lessons = prepare_lessons([ImageAndLabels(str(image), (str(labels),))], ["city"], None)
    chosen = read_recipe(recipe, set_ or ())
    request = TrainRequest(lessons, chosen, training, seed=seed, overwrite=overwrite)
    trained = train_with_progress(request, silent, again="--overwrite")
    product = map_with_progress(
        MapRequest(scene=(str(image),), out=out, model=str(trained.model), overwrite=overwrite),
        silent,
        "--overwrite",
    )
    legend = read_legend("city")
    coarse, mapped = (compare_rasters(p, truth, legend) for p in (labels, out / "landcover.tif"))
    _draw_story(folder / "story.png", (image, labels, out / "landcover.tif", truth), legend, coarse, mapped)
    seconds = time.perf_counter() - begin
    if as_json:
        talk.print_json(
            {
                "coarse_labels": coarse.report(legend),
                "map": mapped.report(legend),
                "seconds": round(seconds, 1),
                "product": str(out),
            }
        )
    elif not quiet:
        print_summary(product)
        _print_accuracy({"coarse labels (10 m)": coarse, "map (1 m)": mapped}, legend)
        gain = 100 * (mapped.miou - coarse.miou)
        typer.echo(
            f"learned from the coarse labels alone, the map's mean IoU is {100 * mapped.miou:.1f} % against "
            f"their {100 * coarse.miou:.1f} %: {gain:+.1f} points\n"
            f"look at {folder / 'story.png'}; {talk.duration(seconds)} in all"
        )


def _print_accuracy(results: dict[str, Confusion], legend: Legend) -> None:
    typer.echo("compared with the truth, intersection over union in %")
    names = [c.name for c in legend.classes]
    typer.echo("  " + " " * 22 + "".join(f"{name[:14]:>16}" for name in [*names, "mean", "accuracy"]))
    for label, confusion in results.items():
        numbers = [*confusion.iou, confusion.miou, confusion.overall_accuracy]
        typer.echo(f"  {label:<22}" + "".join(f"{100 * n:>16.1f}" for n in numbers))


def _draw_story(
    path: Path, files: tuple[Path, ...], legend: Legend, coarse: Confusion, mapped: Confusion
) -> None:
    import numpy as np
    import rasterio

    from citycover.io.preview import colorize, stretch, write_panels

    panels: list[tuple[str, Any]] = []
    names = (
        "image, 1 m",
        f"coarse labels, 10 m: mIoU {coarse.miou:.0%}",
        f"map, 1 m: mIoU {mapped.miou:.0%}",
        "truth",
    )
    with rasterio.open(files[0]) as source:
        side = min(_PANEL, source.height)
    for name, file in zip(names, files, strict=True):
        with rasterio.open(file) as source:
            bands = [1, 2, 3] if source.count >= 3 else [1]
            pixels = np.moveaxis(source.read(bands, out_shape=(len(bands), side, side)), 0, 2)
        seen = np.ones(pixels.shape[:2], np.bool_)
        panels.append((name, stretch(pixels, seen) if len(bands) == 3 else colorize(pixels[..., 0], legend)))
    write_panels(path, panels, legend, "A city learned from coarse labels")
