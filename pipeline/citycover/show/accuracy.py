"""The section of the report that says how right the map is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from citycover.classes.legend import Legend
from citycover.show.parts import chip, matrix_table

NOT_ASSESSED = (
    '<section id="accuracy"><h2>Accuracy</h2><p>Not assessed when this page was written. A sample to '
    "interpret: <code>citycover sample PRODUCT --points 400 -o points.geojson</code>; a map or points of "
    "truth, brought into this page: <code>citycover evaluate PRODUCT --truth FILE --report</code>."
    "</p></section>"
)

_CROWDED = 100_000
"""Numbers above it are written in thousands in the matrix."""


def accuracy_section(facts: Mapping[str, Any], legend: Legend) -> str:
    """The section, of what `citycover evaluate` reports.

    Args:
        facts: `Evaluation.report`, with the name of the `truth`.
        legend: that it was compared in.
    """
    unit = "points" if facts["truth_kind"] == "points" else "pixels"
    overall, adjusted = _percent(facts["overall_accuracy"]), facts.get("area_adjusted")
    lead = f"<strong>{overall}</strong> of {facts['compared']:,} {unit} are right"
    if adjusted:
        lead = (
            f"<strong>{_interval(adjusted['overall_accuracy'])}</strong> of the area is right, estimated "
            f"from {adjusted['points']:,} points, with its 95 % interval; {overall} of the points are"
        )
    left = f"; {facts['left_out']:,} of the truth have no class on the map" if facts["left_out"] else ""
    return (
        f'<section id="accuracy"><h2>Accuracy</h2><p>{lead}. Mean IoU {_percent(facts["miou"])}, kappa '
        f"{_number(facts['kappa'])}.</p>"
        f'<p class="faint">Compared with {escape(str(facts.get("truth", "the truth")))} in legend '
        f"{escape(facts['legend'])}{left}.</p>"
        f"{_classes(facts, legend, unit)}{_matrix(facts, unit)}{_reliability(facts.get('reliability'), unit)}"
        "</section>"
    )


def _classes(facts: Mapping[str, Any], legend: Legend, unit: str) -> str:
    """A row for each class; with intervals and areas where a sample gave them."""
    colors = {one.id: one.color for one in legend.classes}
    adjusted = facts.get("area_adjusted")
    estimates: Sequence[Any] = adjusted["classes"] if adjusted else [None] * len(facts["classes"])
    area = '<th class="n" scope="col">area, ha</th><th class="n wide" scope="col">mapped, ha</th>'
    iou = '<th class="n" scope="col">IoU</th>'
    rows = "".join(
        f'<tr><th scope="row">{chip(colors[one["id"]])}{escape(one["name"])}</th>'
        f"{_figures(one, estimate)}"
        f'<td class="n wide">{one["pixels"]:,}</td></tr>'
        for one, estimate in zip(facts["classes"], estimates, strict=True)
    )
    return (
        '<table class="bars"><thead><tr><th scope="col">class</th><th class="n" scope="col">user\'s</th>'
        '<th class="n" scope="col">producer\'s</th>'
        f"{area if adjusted else iou}"
        f'<th class="n wide" scope="col">{unit}</th></tr></thead><tbody>{rows}</tbody></table>'
        "<p class=\"faint\">User's: of what is mapped so, the share that is right. Producer's: of what is "
        "so, the share that is mapped.</p>"
    )


def _figures(one: Mapping[str, Any], estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        values = [_percent(one[name]) for name in ("users_accuracy", "producers_accuracy", "iou")]
        return "".join(f'<td class="n">{value}</td>' for value in values)
    values = [_interval(estimate[name]) for name in ("users_accuracy", "producers_accuracy")]
    ha = estimate["area_ha"]
    area = "-" if ha["value"] is None else f"{ha['value']:,.1f}{_margin(ha['margin95'], 1)}"
    return (
        "".join(f'<td class="n">{value}</td>' for value in (*values, area))
        + f'<td class="n wide">{estimate["mapped_ha"]:,.1f}</td>'
    )


def _matrix(facts: Mapping[str, Any], unit: str) -> str:
    counts = np.array(facts["matrix"], np.float64)
    thousands = bool(counts.max(initial=0) > _CROWDED)
    texts = [[f"{n / 1000:,.0f}" if thousands else f"{n:,.0f}" for n in row] for row in counts.tolist()]
    names = [one["name"] for one in facts["classes"]]
    return matrix_table(names, counts, texts, (f"truth, in {'thousand ' * thousands}{unit}", "map"))


def _reliability(found: Mapping[str, Any] | None, unit: str) -> str:
    """How often the map is right where it is how sure, as SVG."""
    if not found or not found["bins"]:
        return ""
    most = max(one["pixels"] for one in found["bins"])
    bars = "".join(
        f'<rect x="{30 + 300 * one["from"]:.1f}" y="{210 - 200 * one["right"]:.1f}" width="28" '
        f'height="{200 * one["right"]:.1f}"/><circle cx="{30 + 300 * one["confidence"]:.1f}" '
        f'cy="{210 - 200 * one["right"]:.1f}" r="{2 + 5 * (one["pixels"] / most) ** 0.5:.1f}"><title>said '
        f"{100 * one['confidence']:.0f} %, right {100 * one['right']:.0f} %, {one['pixels']:,} {unit}"
        "</title></circle>"
        for one in found["bins"]
    )
    marks = (0, 0.25, 0.5, 0.75, 1)
    ticks = "".join(
        f'<text x="{30 + 300 * p}" y="226" text-anchor="middle">{100 * p:.0f} %</text>'
        f'<text x="26" y="{214 - 200 * p}" text-anchor="end">{100 * p:.0f}</text>'
        for p in marks
    )
    error = found["expected_calibration_error"]
    return (
        '<figure class="reliability"><svg viewBox="-8 0 358 232" role="img" aria-label="Reliability diagram: '
        f'share that is right, by the probability that the map says">{bars}<line x1="30" y1="210" x2="330" '
        f'y2="10"/><line class="axis" x1="30" y1="210.5" x2="330" y2="210.5"/>{ticks}</svg><figcaption>'
        "Share that is right (up) by the probability that the map says (across); larger dots are more "
        f"{unit}. Below the line the map is surer than it is right; on average it is off by "
        f"{100 * error:.1f} points.</figcaption></figure>"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "-"
    return f"{100 * estimate['value']:.1f}{_margin(estimate['margin95'], 100)} %"


def _margin(margin: float | None, factor: float) -> str:
    return "" if margin is None else f" ± {factor * margin:.1f}"
