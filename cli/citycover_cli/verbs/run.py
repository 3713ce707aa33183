"""`citycover run`: all scenes of a region, again and again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover.errors import StoppedError
from citycover_cli import options
from citycover_cli.follow import watch_map
from citycover_cli.logs import logger
from citycover_cli.metrics import Meter, metering
from citycover_cli.notice import noticing
from citycover_cli.output import (
    duration,
    holes_of,
    mebibytes,
    note,
    print_columns,
    print_json,
    print_table,
    say,
)
from citycover_cli.progress import Part, Progress, show_progress
from citycover_cli.signals import catch_signals, stopped, what_is_kept
from citycover_cli.spans import tracing
from citycover_cli.verb import Talk, heavy, talking

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from citycover.job.watch import Watch
    from citycover.region.config import Region as RegionFile
    from citycover.region.forecast import RegionForecast
    from citycover.region.outcome import Outcome, RegionReport
    from citycover.region.run import Share
    from citycover.region.standing import Standing

HELP = """Map all scenes of a region that are new or changed; what is done is left alone.

Whether a scene is done is told by the content of its files, the model and the region file. Started again, it
goes on where it stopped. A scene that fails does not stop the others: it is listed at the end, and why.

Exit codes: 0 done; 2 the region file is wrong; 3 done, but scenes failed or have holes; 4 this machine lacks
what it asks for; 6 another run of the region is under way; 130 / 143 stopped by a signal.
"""

Region = Annotated[Path, typer.Argument(metavar="REGION", help="Region file (.toml).")]


@talking
@heavy
def run(
    region: Region,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="SCENE", help="This scene alone; again for each further one.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many scenes that have something to do.")
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="The I-th of N parts, which may run side by side.")
    ] = "1/1",
    on_end: options.OnEnd = None,
    metrics: options.Metrics = None,
    otel: options.Otel = False,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.region.config import read_region
    from citycover.region.forecast import forecast_region
    from citycover.region.run import Share
    from citycover.region.scenes import Shard

    with (
        noticing(None if dry_run else on_end, "run") as facts,
        metering(None if dry_run else metrics, "run", str(region.absolute())) as meter,
    ):
        asked, share = read_region(region), Share(Shard.parse(shard), tuple(only or ()), limit)
        meter.name = asked.name if share.shard.count == 1 else f"{asked.name} {share.shard}"
        if dry_run:
            forecast = forecast_region(asked, share)
            if talk.as_json:
                print_json(forecast.facts())
            else:
                print_forecast(forecast)
            return
        with tracing("run", meter.name, asked=otel) as meter.spans:
            run_scenes(asked, share, talk, meter, facts)


def run_scenes(
    region: RegionFile, share: Share | None, talk: Talk, meter: Meter, facts: dict[str, Any], **again: bool
) -> None:
    """Work on a region, and say what became of it, also by the exit code.

    Args:
        region: with its scenes.
        share: those that are worked on; None: all.
        talk: how it is said.
        meter: of the run.
        facts: for whom is told of the end; what there is to say is put in.
        again: `overwrite` and `restart`, see `run_region`.
    """
    report = _run_with_progress(region, share, talk, meter, **again)
    facts.update(report.facts())
    if talk.as_json:
        print_json(report.facts())
    elif not talk.quiet:
        print_report(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _run_with_progress(
    region: RegionFile, share: Share | None, talk: Talk, meter: Meter, **again: bool
) -> RegionReport:
    """Run, say how each scene ended, and turn a signal into its exit code and the way to go on."""
    from citycover.region.run import RegionWatch, run_region

    with catch_signals() as (stop, caught), show_progress(region.name, 1.0, talk.silent) as progress:
        follow = _Follower(progress, stop, talk.silent, meter)
        watch = RegionWatch(follow.begun, follow.scene, meter.retried, follow.ended, stop)
        try:
            return run_region(region, share, watch, **again)
        except StoppedError:
            pass
    raise stopped(caught, what_is_kept(meter.blocks, "scenes and blocks"))


class _Follower:
    """Progress over scenes, and a line as each ends."""

    def __init__(self, progress: Progress, stop: threading.Event, quiet: bool, meter: Meter) -> None:
        self.progress, self.stop, self.quiet, self.meter = progress, stop, quiet, meter
        self.total, self.count = 1, 0

    def begun(self, todo: Sequence[Standing]) -> None:
        self.total = max(1, len(todo))
        self.meter.work(len(todo))

    def scene(self, standing: Standing) -> Watch:
        part = Part(self.progress, self.count / self.total, (self.count + 1) / self.total)
        part.update(0.0, standing.scene.name)
        watch = watch_map(part, self.stop, self.quiet)
        return self.meter.beside(self.meter.spans.scene(standing.scene.name, watch))

    def ended(self, outcome: Outcome) -> None:
        self.count += 1
        self.meter.scene_ended(outcome.what, outcome.holes, failed=outcome.failed)
        self.meter.spans.scene_ended(outcome.what, outcome.message)
        why = f" ({outcome.why})" if outcome.why else ""
        said = f": {outcome.message}" if outcome.message else f" in {duration(outcome.seconds)}"
        line = f"{self.count}/{self.total} {outcome.scene} {outcome.what}{why}{said}"
        level = logging.ERROR if outcome.failed else logging.INFO
        logger.log(level, "%s", line, extra={"facts": outcome.facts()})
        if not (self.quiet or outcome.failed):
            note(line)


def print_forecast(forecast: RegionForecast) -> None:
    """What would be done, for people."""
    rows = [
        (s.scene, s.state, s.why or "-", f"{s.pixels / 1e6:,.1f}", mebibytes(s.write_bytes))
        for s in forecast.scenes
        if s.state != "done"
    ]
    done = len(forecast.scenes) - len(rows)
    if rows:
        print_columns(("scene", "state", "why", "Mpx", "to write"), rows, texts=3)
    time = "not known before the first run" if forecast.seconds is None else duration(forecast.seconds)
    disk = f"{mebibytes(forecast.write_bytes)} at most"
    if forecast.free_bytes is not None:
        disk += f", {mebibytes(forecast.free_bytes)} free"
    say(f"{len(rows)} to do, {done} done; {forecast.pixels / 1e6:,.1f} Mpx; time {time}; disk {disk}")
    for scene in forecast.scenes:
        if scene.problem:
            say(f"{scene.scene} would be refused: {scene.problem}")
    if forecast.aside:
        say(f"of an earlier layout, and put aside once all are done: {', '.join(forecast.aside)}")


def print_report(report: RegionReport) -> None:
    """What became of the region, for people."""
    facts = report.facts()
    rows = [
        ("scenes", ", ".join(f"{count} {what}" for what, count in report.counts.items())),
        ("mapped", f"{facts['pixels'] / 1e6:,.1f} Mpx in {duration(facts['seconds'])}"),
    ]
    rows += [(o.what, f"{o.scene}: {o.message}") for o in report.outcomes if o.what in ("failed", "held")]
    rows += [("holes", f"{o.scene}: {holes_of(o.holes)}") for o in report.outcomes if o.holes]
    print_table(report.region, rows)
