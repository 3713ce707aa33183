"""`citycover vectorize`: a map as polygons."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

HELP = """Turn a map into polygons with class, area and confidence."""


@talking
def run(
    map_: options.Map,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .parquet, .gpkg, .fgb or .geojsonl.")
    ],
    min_area: Annotated[
        float, typer.Option(min=0, help="Square metres; smaller patches go to their longest neighbour.")
    ] = 0.0,
    simplify: Annotated[
        float, typer.Option(min=0, help="Metres to smooth lines by; neighbours keep sharing them.")
    ] = 0.0,
    map_legend: options.MapLegend = None,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.derive.vectorize import vectorize

    with show_progress("vectorizing", 1.0, talk.silent) as progress:
        found = vectorize(
            map_,
            output,
            min_area=min_area,
            simplify=simplify,
            map_legend=map_legend,
            trust=options.trust_of(allow_remote, allow_path),
            progress=progress.update,
        )
    if talk.as_json:
        print_json(asdict(found))
    elif not talk.quiet:
        rows = [("polygons", f"{found.polygons:,}"), ("area", f"{found.square_metres / 1e4:,.2f} ha")]
        print_table(str(found.path), rows)
