"""`citycover compare`: what changed between two maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citycover_cli import options
from citycover_cli.output import print_columns, print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover.derive.change import Change

HELP = """Compare two maps of one place: what became what, and where."""

_SHOWN = 12
"""Changes in the table; all are in --table and --json."""


@talking
def run(
    before: Annotated[
        str,
        typer.Argument(
            metavar="BEFORE", help="Product (folder, or s3://BUCKET/PREFIX), or a raster of classes."
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The later one; its grid counts.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="COG of the transitions to write: .tif.")
    ] = None,
    zones: options.Zones = None,
    by: options.ZonesBy = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out pixels of which a map is less sure.")
    ] = 0.0,
    to: Annotated[str | None, typer.Option(help="Legend to compare in; found where one can be.")] = None,
    map_legend: options.MapLegend = None,
    table: Annotated[
        Path | None, typer.Option(help="Also write all transitions: .csv, .json or .parquet.")
    ] = None,
    into_report: options.IntoReport = False,
    figure: Annotated[Path | None, typer.Option(help="Draw the transitions: .png, .svg or .pdf.")] = None,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.derive.compare import compare
    from citycover.derive.flow import write_flow_figure
    from citycover.derive.table import check_table, write_table
    from citycover.draw.figure import check_figure
    from citycover.product.folder import check_output
    from citycover.show.change import change_section
    from citycover.show.revise import check_report, revise_report

    for path, check in ((table, check_table), (figure, check_figure)):
        if path is not None:
            check(path)
            check_output(path, before, after, zones)
    if into_report:
        later = check_report(after)
    with show_progress("comparing", 1.0, talk.silent) as progress:
        change = compare(
            before, after, output, zones=zones, by=by, min_confidence=min_confidence, to=to,
            map_legend=map_legend, trust=options.trust_of(allow_remote, allow_path), progress=progress.update,
        )  # fmt: skip
    rows = list(change.rows())
    if table is not None:
        write_table(table, rows)
    if figure is not None:
        write_flow_figure(change.whole, change.legend, figure, (Path(before).stem, Path(after).stem))
    facts = {"before": before, "after": after, **change.facts(), "transitions": rows}
    if into_report:
        revise_report(later, change_section(facts, change.legend))
    if talk.as_json:
        print_json(facts)
    elif not talk.quiet:
        print_change(change)


def print_change(change: Change) -> None:
    """The largest changes for people."""
    whole = change.whole
    rows = [
        ("compared", f"{whole.compared / 1e4:,.2f} ha, in legend {change.legend.name}"),
        ("changed", f"{whole.changed / 1e4:,.2f} ha, {whole.changed / whole.compared:.1%}"),
        ("left out", f"{whole.left_out / 1e4:,.2f} ha"),
    ]
    rows += [
        (zone.zone or "", f"{zone.changed / 1e4:,.2f} of {zone.compared / 1e4:,.2f} ha changed")
        for zone in change.zones
    ]
    print_table("change", rows)
    changed = [row for row in change.rows() if row["from"] != row["to"] and row.get("zone") is None]
    changed.sort(key=lambda row: -row["area_m2"])
    if changed:
        print_columns(
            ("from", "to", "ha", "%"),
            [
                (row["from_name"], row["to_name"], f"{row['area_ha']:,.2f}", f"{row['percent']:.1f}")
                for row in changed[:_SHOWN]
            ],
            texts=2,
        )
