"""The section of the report that says what changed since an earlier map."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from citycover.classes.legend import Legend
from citycover.show.parts import chip, matrix_table

NOT_COMPARED = '<section id="change" hidden="hidden"></section>'

_SHOWN = 10
"""Transitions that are spelled out; the matrix has all."""

_HECTARE = 10_000.0


def change_section(facts: Mapping[str, Any], legend: Legend) -> str:
    """The section, of what `citycover compare` reports.

    Args:
        facts: `Change.facts`, with the name of the map `before`, and `transitions` of the whole map.
        legend: that was compared in.
    """
    colors = {one.id: one.color for one in legend.classes}
    compared, changed = facts["compared_m2"], facts["changed_m2"]
    warped = ", seen on the grid of this one," if facts["warped"] else ""
    moved = [row for row in facts["transitions"] if row["from"] != row["to"] and row.get("zone") is None]
    moved.sort(key=lambda row: -float(row["area_m2"]))
    largest = max((row["area_m2"] for row in moved), default=1.0)
    rows = "".join(
        f'<tr><th scope="row">{chip(colors[row["from"]])}{escape(row["from_name"])} '
        f'<span class="to">→ {chip(colors[row["to"]])}{escape(row["to_name"])}</span></th>'
        f'<td class="bar wide"><span style="width:{100 * row["area_m2"] / largest:.1f}%;'
        f'background:{colors[row["to"]]}"></span></td>'
        f'<td class="n">{row["area_ha"]:,.2f}</td><td class="n">{row["percent"]:.1f} %</td></tr>'
        for row in moved[:_SHOWN]
    )
    matrix = np.array(facts["matrix_m2"], np.float64) / _HECTARE
    texts = [[f"{value:,.2f}" if value else "" for value in row] for row in matrix.tolist()]
    names = [one["name"] for one in facts["classes"]]
    return (
        f'<section id="change"><h2>Change</h2><p><strong>{changed / _HECTARE:,.2f} ha</strong>, '
        f"{changed / max(compared, 1e-9):.1%} of {compared / _HECTARE:,.2f} ha, differ from "
        f"{escape(str(facts['before']))}{warped} in legend {escape(facts['legend'])}. Most of what differs "
        "between two maps may be error.</p>"
        '<table class="bars"><thead><tr><th scope="col">from → to</th><td class="wide"></td>'
        f'<th class="n" scope="col">ha</th><th class="n" scope="col">share</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f"{matrix_table(names, matrix, texts, ('before, in ha', 'after'))}</section>"
    )
