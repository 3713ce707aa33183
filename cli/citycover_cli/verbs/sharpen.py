"""`citycover sharpen`: an image and coarse labels of its place into a finer map."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover.errors import ConfigError, StoppedError
from citycover.evidence.request import LabelRequest
from citycover.job.request import EngineOptions, Imagery, ProductOptions, Where
from citycover_cli import options
from citycover_cli.follow import watch_map
from citycover_cli.output import note, print_json, print_table, say
from citycover_cli.progress import Part, show_progress
from citycover_cli.signals import catch_signals, stopped
from citycover_cli.verb import Talk, heavy, skipping, talking
from citycover_cli.verbs.map import print_summary
from citycover_cli.verbs.train import watch_training

if TYPE_CHECKING:
    from citycover_models.sharpen.report import Report
    from citycover_models.sharpen.request import Sharpened, SharpenRequest

HELP = """Sharpen coarse labels of a place with an image of it: train here, map with the labels, judge.

A network learns from the labels under the very image, then maps it with them as evidence beside what it
sees. DIR gets the product as `citycover map` writes it, `training/` with model.pt, sharpen.json (trust in the
labels, method, gains by class on labels that were kept back) and sharpen.png. Started again on an unfinished
DIR, it goes on where it stopped: in the training, in the map, or in publishing.

Exit codes: 0 done; 2 input or options; 3 done, but unreadable parts became nodata; 4 no space, memory or
device; 5 finished before, and identical; 6 another run holds DIR; 130 / 143 stopped by a signal.
"""

_TRAINING = 0.7
"""Share of the time that training takes, about."""


@talking
@heavy
@options.grouped
def run(
    *,
    imagery: Imagery,
    labels: LabelRequest | None,
    to: Annotated[
        str | None, typer.Option(help="Legend of the map (base4 takes all common ones); else the labels'.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the product.")],
    recipe: Annotated[
        str, typer.Option(help="How to train: built-in (l2hnet, vcnet-light, ...) or a .toml file.")
    ] = "l2hnet-light",
    method: Annotated[
        str,
        typer.Option(help="auto: plain cross-entropy; recipe: its own; or ce, plat, cas-dva, ..."),
    ] = "auto",
    set_: options.RecipeChanges = None,
    seed: options.TrainingSeed = 0,
    where: Where,
    engine: EngineOptions,
    product: ProductOptions,
    skip_finished: options.SkipFinished = False,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover_models.sharpen.request import SharpenRequest

    if labels is None:
        raise ConfigError("there is nothing to sharpen; give --labels of the place, and --labels-legend")
    request = SharpenRequest(
        imagery, labels, out, to, recipe, method, tuple(set_ or ()), seed, where, engine, product
    )
    with skipping(skip_finished, out, talk):
        done = sharpen_with_progress(request, talk.silent)
    if talk.as_json:
        print_json(sharpened_facts(done))
    elif not talk.quiet:
        print_sharpened(done)
    if done.product.run.holes:
        raise typer.Exit(3)


def sharpen_with_progress(request: SharpenRequest, quiet: bool) -> Sharpened:
    """Sharpen, show progress, and turn a signal into its exit code and the way to go on."""
    from citycover_models.sharpen.request import SharpenWatch
    from citycover_models.sharpen.sharpen import sharpen

    with catch_signals() as (stop, caught), show_progress("sharpening", 1.0, quiet) as progress:
        watch = SharpenWatch(
            said=lambda line: None if quiet else note(f"citycover: {line}"),
            train=watch_training(Part(progress, 0.0, _TRAINING), stop),
            map=watch_map(Part(progress, _TRAINING, 1.0), stop, quiet),
            stop=stop,
        )
        try:
            return sharpen(request, watch)
        except StoppedError:
            pass
    raise stopped(caught, "what was learned and mapped is kept")


def sharpened_facts(done: Sharpened) -> dict[str, Any]:
    """What came out, for machines."""
    return {
        "product": str(done.product.folder),
        "model_file": str(done.model),
        "picture": str(done.picture),
        "sharpened": done.report.facts(),
        **done.product.run.facts(),
    }


def print_sharpened(done: Sharpened) -> None:
    """What came out, for people."""
    print_summary(done.product)
    report = done.report
    rows = [
        ("model", f"{done.model}; method {report.method}: {report.why}"),
        ("trust", f"{report.trust:.0%}; {report.noise}"),
        ("held out", _held_out(report)),
        ("look at", str(done.picture)),
    ]
    print_table("sharpened", rows)
    if report.judgement is not None:
        _print_gains(report)


def _held_out(report: Report) -> str:
    if report.judgement is None:
        return "image and labels have no room for squares that are held out: nothing was judged"
    return f"{report.judgement.cells:,} labels kept back from training and map; said right by " + ", ".join(
        f"{name} {c.overall_accuracy:.1%}" for name, c in report.judgement.confusions.items()
    )


def _print_gains(report: Report) -> None:
    """A line for each class that occurs."""
    judgement = report.judgement
    assert judgement is not None, "it was looked at"
    say("labels that were kept back, intersection over union in %; shares of the area in %")
    columns = ("labels around", "network", "both", "gain", "in labels", "in map")
    say("  " + " " * 22 + "".join(f"{name:>15}" for name in columns))
    ious = [confusion.iou for confusion in judgement.confusions.values()]
    for number, name in enumerate(report.classes):
        shares = [report.labels.get(name, 0.0), report.mapped.get(name, 0.0)]
        values = [*(iou[number] for iou in ious), judgement.gains()[number], *shares]
        if any(shares):
            said = ["-" if math.isnan(value) else f"{100 * value:.1f}" for value in values]
            say(f"  {name[:22]:<22}" + "".join(f"{text:>15}" for text in said))
