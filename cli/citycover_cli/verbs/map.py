"""`citycover map`: a scene into a product folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from citycover.errors import StoppedError
from citycover.evidence.request import LabelRequest
from citycover.files.remote import place_of
from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions, Where
from citycover_cli import options
from citycover_cli.follow import watch_map
from citycover_cli.metrics import Meter, metering
from citycover_cli.notice import noticing
from citycover_cli.output import duration, holes_of, mebibytes, print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.signals import catch_signals, stopped, what_is_kept
from citycover_cli.spans import tracing
from citycover_cli.verb import Talk, heavy, skipping, talking

if TYPE_CHECKING:
    from citycover.product.product import Product
    from citycover.product.record import RunRecord

HELP = """Map a scene: imagery in, a finished land-cover product out.

Writes landcover.tif and confidence.tif (COG), report.html (to look at), item.json (STAC), run.json
(provenance and figures) and preview.png into DIR, and further layers where they are asked for. Started
again on the folder of an unfinished run, it goes on where that one stopped. Several files are sheets of one
scene, or with --each scenes of their own, in one process: DIR/maps/NAME for each, those that are there and
unchanged left alone, and one that fails does not stop the others.

Exit codes: 0 done; 2 input or options; 3 done, but unreadable parts became nodata, or a scene failed;
4 no space, memory or device; 5 finished before, and identical; 6 another run holds DIR;
130 / 143 stopped by a signal.
"""


@talking
@heavy
@options.grouped
def run(
    *,
    imagery: Imagery,
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the product, or s3://BUCKET/PREFIX."),
    ],
    model: options.Model = None,
    tta: options.Tta = "none",
    require_hash: options.RequireHash = None,
    where: Where,
    engine: EngineOptions,
    product: ProductOptions,
    labels: LabelRequest | None,
    layers: tuple[str, ...],
    each: Annotated[
        bool, typer.Option("--each", help="Each file is a scene of its own, and has its own product.")
    ] = False,
    skip_finished: options.SkipFinished = False,
    on_end: options.OnEnd = None,
    metrics: options.Metrics = None,
    otel: options.Otel = False,
    talk: Talk,
) -> None:
    """See HELP."""
    models = tuple(model) if model else None
    request = MapRequest(
        imagery, place_of(out), models, where, engine, product, labels, require_hash, layers, tta
    )
    with (
        noticing(on_end, "map") as facts,
        metering(metrics, "map", str(out)) as meter,
        tracing("map", str(out), asked=otel) as meter.spans,
    ):
        facts["product"] = str(out)
        if each:
            from citycover.region.config import region_of
            from citycover_cli.verbs.run import run_scenes

            alike = replace(request, product=replace(product, overwrite=False, restart=False))
            again = {"overwrite": product.overwrite, "restart": product.restart}
            run_scenes(region_of(alike), None, talk, meter, facts, **again)
            return
        with skipping(skip_finished, out, talk):
            done = _map_with_progress(request, talk.quiet or talk.log_json, meter)
        meter.scene_ended("mapped", len(done.run.holes))
        meter.spans.scene_ended("mapped")
        facts.update(done.run.facts())
        if talk.as_json:
            print_json({"product": str(done.folder), **done.run.facts()})
        elif not talk.quiet:
            print_summary(done)
        if done.run.holes:
            raise typer.Exit(3)


def _map_with_progress(request: MapRequest, quiet: bool, meter: Meter) -> Product:
    """Map, show progress, and turn a signal into its exit code and the way to go on."""
    from citycover.run.map import map_scene

    with catch_signals() as (stop, caught), show_progress("mapping", 1.0, quiet) as progress:
        try:
            watch = meter.spans.scene(str(request.out), watch_map(progress, stop, quiet))
            return map_scene(request, meter.beside(watch))
        except StoppedError:
            pass
    raise stopped(caught, what_is_kept(meter.blocks))


def _evidence(record: RunRecord) -> str:
    """What the map rests on beside the image."""
    labels = record.labels
    if labels is None:
        takes = bool(record.given.card.get("trained_prior"))  # else map --labels would be refused
        advice = (
            "give --labels of the place" if takes else "citycover sharpen learns from labels of the place"
        )
        return f"extrapolating: the image alone; {advice} where there are some"
    source = {"asked": "asked for", "model": "as its training measured", "scene": "as measured here"}
    why = source[labels.noise_from]
    if labels.noise_from != "asked" and labels.trust == 1 and labels.contradicted > 0:
        why = f"{labels.cells:.0f} labelled cells are too few to measure their noise"
    down, right = labels.offset.cells
    moved = f", read {down:+.2f} cells down and {right:+.2f} right" if labels.offset.sure else ""
    changed = "" if labels.changed is None else f"; {labels.changed:.1%} changed since, and not trusted there"
    return f"with labels, {labels.trust:.0%} trusted ({why}){moved}{changed}"


def print_summary(product: Product) -> None:
    """What came out, where the time went, and what is missing."""
    record = product.run
    timing, machine, amount = record.timing, record.machine, record.amount
    shares = ", ".join(f"{name} {share:.1%}" for name, share in record.shares.items())
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in timing.stages.items() if seconds >= 0.05)
    windows = f"{amount.windows['run']} run, {amount.windows['skipped']} skipped"
    rows = [
        ("product", str(product.folder)),
        ("files", "  ".join(sorted(path.name for path in product.files))),
        ("model", f"{record.given.model.name} on {machine.device}, {machine.form} {machine.precision}"),
        ("evidence", f"{record.standing}; {_evidence(record)}"),
        ("classes", shares or "no valid pixel"),
        ("time", f"{duration(timing.wall_s)}; forward {timing.forward_share:.0%} of the sweep"),
        ("stages (s)", stages),
        ("windows", f"{windows}, redundancy {amount.redundancy:.2f}"),
        ("workers", str(machine.workers)),
        ("peak memory", f"{mebibytes(machine.peak_rss_bytes)} in one process"),
    ]
    if (seams := record.seams) is not None:
        at, elsewhere = (
            "nothing to compare" if share is None else f"{share:.3%} of pixels differ"
            for share in (seams.at_seams, seams.interior)
        )
        rows.append(
            (
                "seams",
                f"on a shifted grid, at seams: {at}; elsewhere: {elsewhere} ({seams.pixels:,} px compared)",
            )
        )
    if record.holes:
        rows.append(("holes", f"{holes_of(len(record.holes))}; holes.geojson shows them"))
    rows.append(("look at", str(product.folder / "report.html")))
    print_table("done", rows)
