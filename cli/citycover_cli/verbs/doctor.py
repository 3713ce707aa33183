"""`citycover doctor`: whether this machine can map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citycover_cli.output import print_json, print_table
from citycover_cli.verb import Talk, heavy, talking

HELP = """Look at the machine: versions, devices, formats, memory, disk; what is broken, what would be slow.

Exit codes: 0 maps can be made; 4 they cannot.
"""


@talking
@heavy
def run(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where products would be written.")
    ] = Path(),
    quick: Annotated[
        bool, typer.Option("--quick", help="Without trials of disk and network: for health checks.")
    ] = False,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.run.doctor import examine

    found = examine(out, trials=not quick)
    if talk.as_json:
        print_json(found.facts())
    elif not talk.quiet or not found.fit:
        marks = {"good": "", "slow": "slow: ", "bad": "BROKEN: "}
        print_table(
            "fit to map" if found.fit else "not fit to map",
            [
                (f.what, f"{f.found}" + (f"\n{marks[f.verdict]}{f.advice}" if f.advice else ""))
                for f in found.findings
            ],
        )
    if not found.fit:
        raise typer.Exit(4)
