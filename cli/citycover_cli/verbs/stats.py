"""`citycover stats`: how much there is of each class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover_cli import options
from citycover_cli.output import print_columns, print_json
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover.derive.areas import AreaTable

HELP = """Say how much there is of each class, on the map and in zones."""


@talking
def run(
    map_: options.Map,
    zones: options.Zones = None,
    by: options.ZonesBy = None,
    assessment: Annotated[
        Path | None,
        typer.Option(
            help="Report of `evaluate` by a stratified sample: adds adjusted areas of the whole map."
        ),
    ] = None,
    map_legend: options.MapLegend = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the table: .csv, .json or .parquet.")
    ] = None,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.derive.areas import zonal_areas
    from citycover.derive.table import check_table, write_table
    from citycover.product.folder import check_output

    if output is not None:
        check_table(output)
        check_output(output, map_, zones, assessment)
    with show_progress("counting", 1.0, talk.silent) as progress:
        table = zonal_areas(
            map_,
            zones,
            by,
            map_legend=map_legend,
            assessment=assessment,
            trust=options.trust_of(allow_remote, allow_path),
            progress=progress.update,
        )
    rows = list(table.rows())
    if output is not None:
        write_table(output, rows)
    if talk.as_json:
        print_json({"map": str(map_), "legend": table.legend.name, "total_m2": table.total, "areas": rows})
    elif not talk.quiet:
        print_areas(table, rows)


def print_areas(table: AreaTable, rows: list[dict[str, Any]]) -> None:
    """Areas for people."""
    head = ["class", "ha", "%", "confidence"]
    if table.zones:
        head = ["zone", *head]
    if table.adjusted:
        head += ["adjusted ha"]
    shown = []
    for row in rows:
        cells = [
            row["name"],
            f"{row['area_ha']:,.2f}",
            _number(row["percent"]),
            _number(row["confidence"], 2),
        ]
        if table.zones:
            cells = ["whole map" if row["zone"] is None else row["zone"], *cells]
        if table.adjusted:
            known = row["adjusted_ha"] is not None
            cells.append(f"{row['adjusted_ha']:,.2f} ± {_number(row['margin95_ha'], 2)}" if known else "")
        shown.append(tuple(cells))
    print_columns(tuple(head), shown, texts=2 if table.zones else 1)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
