"""`citycover sample`: draw points of a map, to be interpreted and to judge it by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover.evaluate.sample import Allocation

HELP = """Draw a stratified random sample of a map's pixels, for `evaluate` to judge it by."""


@talking
def run(
    map_: options.Map,
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
    map_legend: options.MapLegend = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same points.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace points that may have been interpreted.")
    ] = False,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.evaluate.sample import ALLOCATIONS
    from citycover.evaluate.sampling import SampleRequest, sample_map

    options.check_choice("--strata", strata, ("class",))
    request = SampleRequest(
        mapped=map_,
        output=output,
        points=points,
        allocation=cast("Allocation", options.check_choice("--allocation", allocation, ALLOCATIONS)),
        standard_error=standard_error,
        expected=expect,
        map_legend=map_legend,
        seed=seed,
        overwrite=overwrite,
        trust=options.trust_of(allow_remote, allow_path),
    )
    with show_progress("sampling", 1.0, talk.silent) as progress:
        sample = sample_map(request, lambda what, share: progress.update(share, what))
    names = dict(zip(sample.legend.ids, sample.legend.names, strict=True))
    facts = [
        {"id": id_, "name": names[id_], "points": n, "pixels": sample.pixels[id_]}
        for id_, n in sample.allocation.items()
    ]
    drawn = len(sample.strata)
    if talk.as_json:
        print_json({"points": drawn, "seed": seed, "output": str(output), "strata": facts})
    elif not talk.quiet:
        rows = [(str(f["name"]), f"{f['points']} points of {f['pixels']:,} pixels") for f in facts]
        print_table(f"{drawn} points in {output}; fill in `class`, then: citycover evaluate", rows)
