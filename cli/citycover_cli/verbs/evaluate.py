"""`citycover evaluate`: how right a map is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from citycover_cli import options
from citycover_cli.output import print_columns, print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

if TYPE_CHECKING:
    from citycover.evaluate.decide import Merge
    from citycover.evaluate.evaluate import Evaluation

HELP = """Compare a map with the truth: a raster, points or polygons."""


@talking
def run(
    map_: options.Map,
    truth: Annotated[
        str,
        typer.Option(help="Raster of classes, product, or points or polygons (CSV, GeoJSON, ...)."),
    ],
    legend: Annotated[
        str | None, typer.Option(help="Of the truth: a name, name:variant or file; else that of the map.")
    ] = None,
    map_legend: options.MapLegend = None,
    to: Annotated[str | None, typer.Option(help="Legend to compare in; found where one can be.")] = None,
    field: Annotated[str, typer.Option(help="Column of points or polygons with the class: id or name.")] = (
        "class"
    ),
    truth_class: Annotated[
        str | None, typer.Option(help="Class of all points or polygons, where no column says it.")
    ] = None,
    truth_crs: Annotated[
        str | None, typer.Option(help="CRS of points or polygons, instead of what their file says.")
    ] = None,
    elsewhere: Annotated[
        str | None, typer.Option(help="Class of what lies outside all polygons; else it is not compared.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Of the map: raster with a band for each class, or Zarr.")
    ] = None,
    merge: Annotated[
        str, typer.Option(help="Merge classes last: of the map; first: add their probabilities, then decide.")
    ] = "last",
    figure: Annotated[Path | None, typer.Option(help="Draw the matrix into this PNG.")] = None,
    into_report: options.IntoReport = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the JSON into this file.")
    ] = None,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    options.check_choice("--merge", merge, ("first", "last"))
    from citycover.evaluate.evaluate import evaluate
    from citycover.evaluate.request import EvaluationRequest
    from citycover.files.output import write_output
    from citycover.product.folder import check_output
    from citycover.show.accuracy import accuracy_section
    from citycover.show.revise import check_report, revise_report

    request = EvaluationRequest(
        mapped=map_,
        truth=truth,
        legend=legend,
        map_legend=map_legend,
        to=to,
        field=field,
        truth_class=truth_class,
        truth_crs=truth_crs,
        elsewhere=elsewhere,
        probabilities=probabilities,
        merge=cast("Merge", merge),
        trust=options.trust_of(allow_remote, allow_path),
    )
    for path in (figure, output):
        if path is not None:
            check_output(path, map_, truth, probabilities)
    if figure is not None:
        from citycover.draw.figure import check_figure
        from citycover.evaluate.figure import write_matrix_figure

        check_figure(figure)
    if into_report:
        judged = check_report(map_)
    with show_progress("comparing", 1.0, talk.silent) as progress:
        evaluation = evaluate(request, progress.update)
    report = {"map": str(map_), "truth": str(truth)} | evaluation.report()
    if output is not None:
        write_output(output, json.dumps(report, indent=1, allow_nan=False) + "\n")
    if figure is not None:
        write_matrix_figure(evaluation.confusion, evaluation.legend, figure)
    if into_report:
        revise_report(judged, accuracy_section(report, evaluation.legend))
    if talk.as_json:
        print_json(report)
    elif not talk.quiet:
        print_evaluation(evaluation)


def print_evaluation(evaluation: Evaluation) -> None:
    """The figures for people, all in percent but kappa."""
    confusion, unit = evaluation.confusion, "points" if evaluation.kind == "points" else "pixels"
    left = f", {confusion.left_out:,} left out" if confusion.left_out else ""
    empty = f", {evaluation.unlabelled:,} of the truth without a class" if evaluation.unlabelled else ""
    rows = [
        ("compared", f"{confusion.compared:,} {unit}{left}{empty}, in legend {evaluation.legend.name}"),
        ("overall accuracy", _percent(confusion.overall_accuracy)),
        ("mean IoU", f"{_percent(confusion.miou)}, weighted by frequency {_percent(confusion.fwiou)}"),
        ("mean class recall", _percent(confusion.mean_class_recall)),
        ("kappa", f"{confusion.kappa:.3f}"),
    ]
    print_table(f"compared with {evaluation.kind}", rows)
    print_columns(
        ("class", "IoU", "F1", "user's", "producer's", unit),
        [
            (c.name, _percent(i), _percent(f), _percent(u), _percent(p), f"{n:,}")
            for c, i, f, u, p, n in zip(
                evaluation.legend.classes,
                confusion.iou,
                confusion.f1,
                confusion.users_accuracy,
                confusion.producers_accuracy,
                confusion.counts.sum(1).tolist(),
                strict=True,
            )
        ],
    )
    if evaluation.sample is not None:
        _print_adjusted(evaluation)


def _print_adjusted(evaluation: Evaluation) -> None:
    """Estimates with half the width of their 95 % intervals."""
    sample = evaluation.sample
    assert sample is not None, "the caller looked"
    overall = _pm(sample.overall_accuracy)
    print_table("adjusted by area, with 95 % confidence intervals", [("overall accuracy", overall)])
    print_columns(
        ("class", "user's", "producer's", "area in ha", "mapped in ha"),
        [
            (c.name, _pm(u), _pm(p), _hectares(a * evaluation.hectares), f"{m * evaluation.hectares:,.2f}")
            for c, u, p, a, m in zip(
                evaluation.legend.classes,
                sample.users_accuracy,
                sample.producers_accuracy,
                sample.areas,
                sample.proportions.sum(1).tolist(),
                strict=True,
            )
        ],
    )


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.1f}"  # noqa: PLR0124  (NaN)


def _pm(estimate: Any) -> str:
    return f"{_percent(estimate.value)} ± {_percent(estimate.margin)}"


def _hectares(estimate: Any) -> str:
    return " ± ".join("-" if math.isnan(n) else f"{n:,.2f}" for n in (estimate.value, estimate.margin))
