"""`citycover sample`: draw points of a map, to be interpreted and to judge it by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from citycover_cli import options
from citycover_cli.logs import logger
from citycover_cli.output import print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover.classes.legend import Legend
    from citycover.evaluate.sample import Allocation

HELP = """Draw a stratified random sample of a map's pixels, for `evaluate` to judge it by."""


@talking
def run(
    map_: Annotated[Path, typer.Argument(metavar="MAP", help="Product folder, or a raster of classes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Points to write: .geojson or .csv.")],
    points: Annotated[
        int | None, typer.Option(min=1, help="How many; without it, as many as --standard-error takes.")
    ] = None,
    strata: Annotated[str, typer.Option(help="What to stratify by: class.")] = "class",
    allocation: Annotated[
        str,
        typer.Option(help="proportional, equal, or olofsson: at least 50 a class, the rest proportional."),
    ] = "proportional",
    standard_error: Annotated[
        float, typer.Option(help="Wanted of the overall accuracy, as a share; says how many points to draw.")
    ] = 0.01,
    expect: Annotated[
        str,
        typer.Option(help="User's accuracy that is expected, for --standard-error: 0.8, or 0.8,ID=0.6,..."),
    ] = "0.8",
    map_legend: Annotated[str | None, typer.Option(help="Of a map that is no product.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same points.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace points that may have been interpreted.")
    ] = False,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.errors import ConfigError
    from citycover.evaluate.estimate import sample_size
    from citycover.evaluate.points import check_ending, write_sample
    from citycover.evaluate.request import resolve_map
    from citycover.evaluate.sample import ALLOCATIONS, count_strata, draw_sample, limits

    options.check_choice("--allocation", allocation, ALLOCATIONS)
    options.check_choice("--strata", strata, ("class",))
    check_ending(output)
    if output.exists() and not overwrite:
        raise ConfigError(f"{output} exists, and may hold someone's work; choose another -o, or --overwrite")
    side = resolve_map(map_, map_legend)
    expected = _expected(expect, side.legend)
    with show_progress("counting pixels", 1.0, talk.silent) as progress:
        pixels = count_strata(side.path, side.legend, progress.update)
    how = cast("Allocation", allocation)
    if points is None:
        total = sum(pixels.values())
        shares, accuracies = [n / total for n in pixels.values()], [expected[id_] for id_ in pixels]
        computed = sample_size(shares, accuracies, standard_error)
        least, most = limits(pixels, how)
        points = max(least, min(most, computed))
        if points != computed:
            logger.warning(
                "that standard error takes %d points; strata take %d to %d, so %d are drawn",
                computed, least, most, points,
            )  # fmt: skip
    with show_progress("drawing points", 1.0, talk.silent) as progress:
        sample = draw_sample(side.path, side.legend, pixels, points, how, seed, progress.update)
    write_sample(sample, output)
    names = dict(zip(side.legend.ids, side.legend.names, strict=True))
    facts = [
        {"id": id_, "name": names[id_], "points": n, "pixels": pixels[id_]}
        for id_, n in sample.allocation.items()
    ]
    if talk.as_json:
        print_json({"points": points, "seed": seed, "output": str(output), "strata": facts})
    elif not talk.quiet:
        rows = [(str(f["name"]), f"{f['points']} points of {f['pixels']:,} pixels") for f in facts]
        print_table(f"{points} points in {output}; fill in `class`, then: citycover evaluate", rows)


def _expected(text: str, legend: Legend) -> dict[int, float]:
    """Class id -> user's accuracy."""
    from citycover.errors import ConfigError

    expected = dict.fromkeys(legend.ids, 0.8)
    parts = [part.rpartition("=") for part in text.split(",")]
    try:
        for _, _, value in (part for part in parts if not part[1]):
            expected = dict.fromkeys(legend.ids, float(value))
        for id_, _, value in (part for part in parts if part[1]):
            if int(id_) not in expected:
                raise ConfigError(f"--expect names class {id_}, legend {legend.name!r} has {legend.ids}")
            expected[int(id_)] = float(value)
    except ValueError:
        raise ConfigError(f"--expect takes a share, or shares by class id: 0.8,3=0.6; got {text!r}") from None
    return expected
