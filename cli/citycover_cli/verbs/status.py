"""`citycover status`: how a region stands."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from citycover_cli.output import duration, print_json, say
from citycover_cli.verb import Talk, talking
from citycover_cli.verbs.run import Region

if TYPE_CHECKING:
    from citycover.region.status import RegionStatus

HELP = """Say how a region stands: what is done, what is under way and for how long, what failed and why."""

_EVERY = 2.0
"""Seconds between two looks."""


@talking
def run(
    region: Region,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until ended.")] = False,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.region.config import read_region
    from citycover.region.status import status_of

    asked = read_region(region)
    while True:
        status = status_of(asked)
        if talk.as_json:
            print_json({"region": asked.name, "out": str(asked.out), **status.facts()})
        else:
            if watch and sys.stdout.isatty():
                print("\x1b[2J\x1b[H", end="")  # an empty screen
            say("\n".join(lines_of(asked.name, status)))
        if not watch:
            return
        time.sleep(_EVERY)


def lines_of(name: str, status: RegionStatus) -> list[str]:
    """How a region stands, for people."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status.counts.items()))
    lines = [f"{name}: {counts}"]
    for now in status.now:
        left = "" if now.left_s is None else f", about {duration(now.left_s)} left"
        lines.append(
            f"  under way since {now.started:%Y-%m-%d %H:%M} UTC, process {now.process} on {now.host}: "
            f"{now.ended} of {now.scenes} scenes, {now.failed} failed; {now.scene} {now.share:.0%}{left}"
        )
    lines += [
        f"  {scene.state:<10}  {scene.scene.name}{f' ({scene.why})' if scene.why else ''}"
        for scene in status.standings
        if scene.state != "done"
    ]
    lines += [
        f"  failed      {scene}: {failure.get('message', '')}" for scene, failure in status.failures.items()
    ]
    lines += [f"  gone        {scene}: its files are no more there, its product is" for scene in status.gone]
    lines += [f"  aside       {name}: of an earlier layout, goes once all are done" for name in status.aside]
    for run_ in status.runs[-3:]:
        told = ", ".join(f"{count} {what}" for what, count in dict(run_.get("counts", {})).items())
        error = f"ended by an error: {run_['error']}" if run_.get("error") else ""
        end = "stopped" if run_.get("stopped") else error or f"exit code {run_.get('exit_code')}"
        lines.append(f"  run of {run_.get('started')}: {told or 'nothing'}; {end}")
    return lines
