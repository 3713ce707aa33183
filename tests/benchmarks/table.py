"""From the runs of a benchmark to its rows, and from rows to Markdown: numbers in, text out."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

Run = dict[str, Any]
"""One finished or failed run: network, size, method, allocator, round; then figures, or an error."""
Row = dict[str, Any]

BASE = "citycover"
FIGURES = ("wall_s", "cpu_s", "mpx_per_s", "forward_share", "redundancy", "peak_bytes", "process_s")
FIDELITY = ("disagreement", "frame_lost", "cog")
HEADINGS = (
    "method", "setting", "rounds", "wall, s", "unique Mpx/s", "forward share", "redundancy", "peak, GiB",
    "wall / citycover's", "allocator tuned", "processor time / citycover's", "allocator tuned",
    "disagreement, %", "frame pixels lost", "valid COG",
)  # fmt: skip


def rows_of(runs: Iterable[Run], network: str, size: int, methods: Sequence[str]) -> list[Row]:
    """A row for each method that was tried: medians over its rounds, ratios of one round, then their median.

    Rounds without a finished run of citycover give no ratio. A method that only failed keeps its last error.
    """
    here = [run for run in runs if run["network"] == network and run["size"] == size]
    base = {run["round"]: run for run in here if run["method"] == BASE and "error" not in run}
    rows = []
    for method in methods:
        tried = [run for run in here if run["method"] == method]
        if tried:
            rows.append({"method": method, "network": network, "size": size} | _row(tried, base))
    return rows


def _row(tried: list[Run], base: dict[int, Run]) -> Row:
    done = [run for run in tried if "error" not in run]
    shipped = [run for run in done if run["allocator"] != "tuned"]
    tuned = [run for run in done if run["allocator"] == "tuned"]
    if not shipped:
        return {"setting": tried[-1].get("setting", ""), "error": tried[-1].get("error", "only tuned runs")}
    row: Row = {"setting": shipped[-1]["setting"], "rounds": len(shipped)}
    for name, some in (("", shipped), ("_tuned", tuned)):
        row |= {key + name: _median(some, key) for key in FIGURES}
        row |= {f"{key}_ratio{name}": _ratio(some, base, key) for key in ("wall_s", "cpu_s")}
    for key in FIDELITY:
        row[key] = next((run[key] for run in shipped if run.get(key) is not None), None)
    return row


def _median(runs: list[Run], key: str) -> float | None:
    values = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(values) if values else None


def _ratio(runs: list[Run], base: dict[int, Run], key: str) -> float | None:
    pairs = [(run, base.get(run["round"], {})) for run in runs]
    ratios = [run[key] / other[key] for run, other in pairs if key in run and key in other]
    return statistics.median(ratios) if ratios else None


def markdown(rows: Sequence[Row]) -> str:
    """A table; a method that failed says why in place of its figures."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    for row in rows:
        cells = [row["method"], row["setting"], *(_failed(row) if "error" in row else _cells(row))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _failed(row: Row) -> list[str]:
    return [f"not measured: {row['error']}", *[""] * (len(HEADINGS) - 3)]


def _cells(row: Row) -> list[str]:
    peak, share, cog = row["peak_bytes"], row["disagreement"], row["cog"]
    return [
        _number(row["rounds"], "d"),
        _number(row["wall_s"], ".1f"),
        _number(row["mpx_per_s"], ".2f"),
        _number(row["forward_share"], ".2f"),
        _number(row["redundancy"], ".2f"),
        _number(peak and peak / 2**30, ".1f"),
        _number(row["wall_s_ratio"], ".2f"),
        _number(row["wall_s_ratio_tuned"], ".2f"),
        _number(row["cpu_s_ratio"], ".2f"),
        _number(row["cpu_s_ratio_tuned"], ".2f"),
        _number(share if share is None else 100 * share, ".4f"),
        _number(row["frame_lost"], "d"),
        "" if cog is None else ("yes" if cog else "no"),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def between(text: str, begin: str, end: str, new: str) -> str:
    """The text with what stands between two marker lines replaced.

    Raises:
        ValueError: a marker is missing.
    """
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"markers {begin!r} and {end!r} are needed, in this order")
    return f"{head}{begin}\n\n{new}\n\n{end}{tail}"
