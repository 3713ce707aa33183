"""`report.html`: one file that shows a product to whoever did not make it.

Self-contained: pictures are data URIs, style and the few lines of script stand inside, nothing is fetched. It
is well-formed as XML is, so that any parser can check it. Every text that comes from a file or a user is
escaped by `html.escape` where it enters; what is not escaped is written here.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from datetime import UTC
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from citycover.draw.colours import CONFIDENCE_RAMP, colorize
from citycover.draw.parts import length_text, round_length
from citycover.draw.preview import decimation
from citycover.files.atomic import write_atomic
from citycover.product.record import RunRecord
from citycover.product.shown import Shown
from citycover.show.accuracy import NOT_ASSESSED
from citycover.show.change import NOT_COMPARED
from citycover.show.parts import chip, key, listed, style

_BINS = 20

_LINES = 40
"""Most holes and warnings that are spelled out."""

_SMALL_SIDE = 500
"""Most pixels of a picture that takes half of the page."""

_LOW = 0.5
"""Probability below which a pixel counts as not confident."""

_STAGES = {
    "start": ("start", "#8d99a6"),
    "wait": ("waiting for pixels", "#d98c2b"),
    "copy": ("copying to the device", "#b8a13a"),
    "forward": ("network", "#2f7fc1"),
    "blend": ("blending and layers", "#4aa47c"),
    "mask": ("masking", "#7d6bb3"),
    "device": ("waiting for the device", "#5b8db8"),
    "handover": ("waiting for the disk", "#c1554d"),
    "other": ("other", "#b6bdc4"),
}
"""What people call the stages of a run, and their colours."""

_SCRIPT = (
    "for (const range of document.querySelectorAll('input[type=range]'))"
    "range.addEventListener('input', () => document.getElementById(range.dataset.of)"
    ".style.setProperty('--cut', range.value + '%'));"
)


def write_report(path: Path, shown: Shown) -> None:
    """Write the page, wholly or not at all."""
    write_atomic(path, report_page(shown))


def report_page(shown: Shown) -> str:
    """The whole page."""
    parts = (
        _head(shown),
        _pictures(shown),
        _areas(shown),
        _confidence(shown),
        NOT_ASSESSED,
        NOT_COMPARED,
        _time(shown.record),
        _gaps(shown.record),
        _provenance(shown),
        _sources(shown.record),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(shown.title)} - land cover</title>{style()}</head>\n"
        f"<body><main>\n{chr(10).join(parts)}\n</main><script>{_SCRIPT}</script></body></html>\n"
    )


def _head(shown: Shown) -> str:
    """Title, what it rests on, and a warning where the map should not be believed as it is."""
    record = shown.record
    height, width = shown.shape
    when = escape(_when(record))
    size = f"{width:,} x {height:,} px at {record.given.gsd:.3g} m"
    badges = "".join(
        f'<li class="warn">{escape(text)}</li>' if bad else f"<li>{escape(text)}</li>"
        for text, bad in _standing(record)
    )
    return (
        f"<header><h1>{escape(shown.title)}</h1>"
        f'<p class="faint">Land cover by {escape(record.given.model.name)} · {when} · {size} · '
        f'{escape(shown.crs)}</p><ul class="badges">{badges}</ul>{_caveat(record)}</header>'
    )


def _when(record: RunRecord) -> str:
    """When the imagery was taken, and what became of several dates."""
    given = record.given
    if given.dates:
        return f"{given.composite} of {len(given.dates)} dates, {given.dates[-1]} to {given.dates[0]}"
    return given.time or "time of the imagery not known"


def _standing(record: RunRecord) -> list[tuple[str, bool]]:
    """What a map rests on, in words, each with whether it is a reason to doubt it."""
    return [(record.standing, record.standing != "trained model"), (record.evidence, record.labels is None)]


def _caveat(record: RunRecord) -> str:
    if record.standing == "random weights":
        said = "The weights of this network are random. The map shows nothing."
    elif record.standing == "built-in colour rules":
        said = (
            "Classes come from rules of colour that were not fitted to this place: dark asphalt may be "
            "water, cloud may be land. Look at the picture before using a figure."
        )
    elif record.labels is None:
        said = (
            "The network maps a place that it may never have seen. Labels of the place "
            "(<code>--labels</code>), or an assessment, tell how far it can be believed."
        )
    else:
        return ""
    return f'<p class="note warn">{said}</p>'


def _pictures(shown: Shown) -> str:
    """The image under the map, with an edge that can be moved, a scale bar and the legend."""
    legend = shown.record.legend
    image = _jpeg(shown.image)
    seen = shown.classes != legend.product_nodata
    chart = _png(colorize(shown.classes, legend), seen)
    width = shown.classes.shape[1]
    length = round_length(0.3 * width * shown.metres)
    share, text = length / (width * shown.metres), length_text(length)
    cropped = "; the middle of the scene is shown" if shown.cropped else ""
    chips = key((one.color, one.name) for one in legend.classes if shown.counts.get(one.id))
    largest = f"max-width:min(100%,{80 * max(width, 240) / max(shown.classes.shape[0], 1):.0f}vh)"
    return (
        f'<section><h2>Image and map</h2><figure style="{largest}"><div class="swipe" id="swipe">'
        f'<img src="{image}" alt="The image"/><div class="over"><img src="{chart}" alt="The map"/></div>'
        '<span class="edge"></span><span class="tag left">image</span>'
        '<span class="tag right">map</span></div>'
        '<input type="range" min="0" max="100" value="50" data-of="swipe" '
        'aria-label="How much of the image is shown"/>'
        f'<div class="scale" style="--share:{share:.3g}"></div><figcaption>{text}{cropped}</figcaption>'
        f"</figure><p>{chips}</p></section>"
    )


def _areas(shown: Shown) -> str:
    """How much there is of each class."""
    legend, total = shown.record.legend, sum(shown.counts.values())
    largest = max(shown.counts.values(), default=0)
    rows = []
    for one in sorted(legend.classes, key=lambda c: -shown.counts.get(c.id, 0)):
        count = shown.counts.get(one.id, 0)
        square = count * shown.pixel_area
        width = 100 * count / largest if largest else 0
        bar = f'<span style="width:{width:.2f}%;background:{one.color}"></span>'
        rows.append(
            f'<tr><th scope="row">{chip(one.color)}{escape(one.name)}</th><td class="bar">{bar}</td>'
            f'<td class="n">{100 * count / total if total else 0:.1f} %</td>'
            f'<td class="n">{square / 1e4:,.2f}</td><td class="n wide">{square:,.0f}</td></tr>'
        )
    note = f"Counted pixels of {shown.pixel_area:.4g} m², the mean size in the map; nodata is left out."
    return (
        '<section><h2>Areas</h2><table class="bars"><thead><tr><th scope="col">class</th><td></td>'
        '<th class="n">share</th>'
        '<th class="n">ha</th><th class="n wide">m²</th></tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><p class="faint">{note}</p></section>'
    )


def _confidence(shown: Shown) -> str:
    """Where the map is unsure, and how often."""
    seen = shown.confidence > 0
    values = shown.confidence[seen] / 255
    step = decimation(seen.shape, _SMALL_SIDE)
    picture = _png(CONFIDENCE_RAMP[shown.confidence[::step, ::step]], seen[::step, ::step])
    low = f"{(values < _LOW).mean():.1%}" if values.size else "None"
    said = f"{low} of the pixels shown have a probability below {_LOW:.0%}."
    return (
        '<section><h2>Where it is unsure</h2><div class="two"><figure>'
        f'<img src="{picture}" alt="Confidence: red is low, blue is high"/>'
        "<figcaption>Probability of the best class: red is low, blue is high.</figcaption></figure>"
        f"<figure>{_histogram(values)}<figcaption>Pixels by that probability. {said} A probability is the "
        "network's own opinion, not a measured accuracy.</figcaption></figure></div></section>"
    )


def _histogram(values: NDArray[np.floating]) -> str:
    """Shares of pixels by probability, as SVG."""
    counts = np.histogram(values, bins=_BINS, range=(0, 1))[0]
    tallest = max(int(counts.max()), 1)
    bars = "".join(
        f'<rect x="{20 + 16 * k}" y="{160 - 140 * n / tallest:.1f}" width="14" '
        f'height="{140 * n / tallest:.1f}"><title>{k / _BINS:.2f} to {(k + 1) / _BINS:.2f}: '
        f"{100 * n / max(values.size, 1):.1f} %</title></rect>"
        for k, n in enumerate(counts.tolist())
    )
    ticks = "".join(
        f'<text x="{20 + 320 * p}" y="176" text-anchor="middle">{100 * p:.0f} %</text>'
        for p in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        '<svg class="hist" viewBox="0 0 360 184" role="img" aria-label="Histogram of confidence">'
        f'<line x1="20" y1="160.5" x2="340" y2="160.5"/>{bars}{ticks}</svg>'
    )


def _time(record: RunRecord) -> str:
    """Where the time went, and what held the run up."""
    stages = {name: seconds for name, seconds in record.timing.stages.items() if seconds > 0}
    total = sum(stages.values()) or 1.0
    known = {name: _STAGES.get(name, (name, "#b6bdc4")) for name in stages}
    bar = "".join(
        f'<span style="width:{100 * seconds / total:.2f}%;background:{known[name][1]}" '
        f'title="{escape(known[name][0])}: {seconds:.1f} s"></span>'
        for name, seconds in stages.items()
    )
    chips = key(
        (known[name][1], f"{known[name][0]} {seconds:.3g} s")
        for name, seconds in stages.items()
        if seconds / total >= 0.005
    )
    held = max(stages, key=lambda name: stages[name], default="")
    named = f"The bottleneck was {escape(known[held][0])}: {stages[held] / total:.0%}." if held else ""
    machine = record.machine
    rate = record.amount.pixels / 1e6 / max(record.timing.wall_s, 1e-9)
    return (
        f"<section><h2>Time</h2><p>{record.timing.wall_s:,.1f} s on {escape(machine.device)} in "
        f"{escape(machine.form)} {escape(machine.precision)}, "
        f"{machine.workers} process{'es' * (machine.workers > 1)}, "
        f"{rate:.2f} Mpx/s, at most {machine.peak_rss_bytes / 2**20:,.0f} MiB each. {named}</p>"
        f'<div class="stack">{bar}</div><p class="faint">{chips}</p></section>'
    )


def _gaps(record: RunRecord) -> str:
    """Holes and warnings."""
    lines = [
        f"Unreadable: {hole.window.height} x {hole.window.width} px at row {hole.window.row}, column "
        f"{hole.window.col} of {hole.path}: {hole.reason}"
        for hole in record.holes
    ]
    lines = [*record.warnings, *lines]
    if len(lines) > _LINES:
        lines = [*lines[:_LINES], f"and {len(lines) - _LINES:,} more: run.json lists them"]
    if not lines:
        return "<section><h2>Holes and warnings</h2><p>None.</p></section>"
    return f"<section><h2>Holes and warnings</h2>{listed(lines)}</section>"


def _provenance(shown: Shown) -> str:
    record = shown.record
    given, timing = record.given, record.timing
    finished = timing.finished.astimezone(UTC).isoformat(timespec="seconds") if timing.finished else ""
    facts: Mapping[str, str] = {
        "model": f"{given.model.name} {given.model.version}, sha256 {given.model.sha256[:16]}...",
        "imagery": ", ".join(Path(one.path).name for one in given.inputs),
        "evidence": record.evidence,
        "changed since the labels": _changed(record),
        "windows": "{} run, {} skipped, redundancy {}".format(
            record.amount.windows.get("run", 0),
            record.amount.windows.get("skipped", 0),
            record.amount.redundancy,
        ),
        "attempts": str(record.attempts),
        "finished": finished,
        "host": record.machine.host,
        "software": ", ".join(f"{name} {version}" for name, version in given.versions.items()),
        "command": " ".join(given.command),
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text)
    return (
        f'<section><h2>Provenance</h2><dl class="facts">{rows}</dl>'
        '<p class="faint">All of it: run.json.</p></section>'
    )


def _changed(record: RunRecord) -> str:
    """Share of the labelled map where the place has changed; nothing where nobody looked."""
    changed = record.labels.changed if record.labels else None
    return "" if changed is None else f"{changed:.1%} of what is labelled; change.tif says where"


def _sources(record: RunRecord) -> str:
    """Whom to name, and under what terms."""
    card = record.card
    made = record.timing.finished.year if record.timing.finished else ""
    version = record.given.versions.get("citycover", "")
    lines = [
        f"This map: land cover by {card.name} {card.version}, made with citycover {version}, {made}.",
        f"The model: licence {card.licence}; {card.training or 'what it was trained on is not said'}",
        *card.sources,
    ]
    if record.labels is not None:
        lines += [
            f"{one.title} {one.year}: {one.attribution} ({one.licence})" for one in record.labels.credits
        ]
    lines.append("The imagery: by the terms of who gave it.")
    return f"<section><h2>How to cite</h2>{listed(lines)}</section>"


def _png(rgb: NDArray[np.uint8], seen: NDArray[np.bool_]) -> str:
    """A data URI; transparent where nothing was seen."""
    alpha = np.where(seen, 255, 0).astype(np.uint8)
    return _uri(Image.fromarray(np.dstack([rgb, alpha])).quantize(128, dither=Image.Dither.NONE), "png")


def _jpeg(rgb: NDArray[np.uint8]) -> str:
    return _uri(Image.fromarray(rgb), "jpeg")


def _uri(picture: Image.Image, kind: str) -> str:
    held = io.BytesIO()
    picture.save(held, kind)  # the smallest PNG would take fifteen times as long
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
