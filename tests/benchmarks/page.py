"""docs/benchmarks.md made anew from docs/benchmarks.json: every table, none of the words around them.

    python tests/benchmarks/page.py            # make bench-page

Benchmarks write what they measured into the file and call this; what another machine measured stays.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from table import between, markdown

DOCS = Path(__file__).resolve().parents[2] / "docs"

Data = dict[str, Any]

PEERS = "<!-- peers: begin -->", "<!-- peers: end -->"
ELSEWHERE = "<!-- peers elsewhere: begin -->", "<!-- peers elsewhere: end -->"
FORMS = "<!-- forms: begin -->", "<!-- forms: end -->"
EVERY = "<!-- every network: begin -->", "<!-- every network: end -->"
GPU = "<!-- gpu: begin -->", "<!-- gpu: end -->"
START = "<!-- start: begin -->", "<!-- start: end -->"


def keep(docs: Path, **news: Any) -> None:
    """Put what was measured into the file, and make the page anew."""
    file = docs / "benchmarks.json"
    data = (json.loads(file.read_text()) if file.exists() else {}) | news
    file.write_text(json.dumps(data, indent=1) + "\n")
    page = docs / "benchmarks.md"
    page.write_text(made(page.read_text(encoding="utf-8"), data), encoding="utf-8")


def with_peers(machines: list[Data], new: Data) -> list[Data]:
    """What was measured beside peers, by machine: of one machine, network and size the news alone count."""
    same = next((one for one in machines if one["machine"]["cpu"] == new["machine"]["cpu"]), None)
    if same is None:
        return [*machines, new]
    fresh = {(row["network"], row["size"]) for row in new["rows"]}
    older = [row for row in same["rows"] if (row["network"], row["size"]) not in fresh]
    rows = sorted([*new["rows"], *older], key=lambda row: (row["network"], row["size"]), reverse=True)
    return [one if one is not same else new | {"rows": rows} for one in machines]


def made(text: str, data: Data) -> str:
    """The page with its tables."""
    first, *others = data["machines"]
    parts = {
        PEERS: of_peers(first, "###"),
        ELSEWHERE: "\n\n".join(f"#### {_called(one)}\n\n{of_peers(one, '#####')}" for one in others),
        FORMS: of_forms(data["forms"], alone=True),
        EVERY: of_forms(data["every network"], alone=False),
        GPU: of_gpu(data["gpu"]),
        START: "\n".join(data["start"]),
    }
    for marks, content in parts.items():
        text = between(text, *marks, content)
    return text


def _called(one: Data) -> str:
    return f"{one['machine']['cpu']}, {one['machine'].get('flags') or 'no bf16'}"


def of_peers(one: Data, level: str) -> str:
    """Tables of a machine, a network and size each."""
    here, rows = one["machine"], one["rows"]
    said = (
        f"{here['cores']} cores of {here['cpu']}, {here['memory_gib']} GiB; Python {here['python']}, torch "
        f"{here['torch']}; citycover {here['citycover']}, {', '.join(one['packages'])}."
    )
    tables = []
    for network, size in dict.fromkeys((row["network"], row["size"]) for row in rows):
        some = [row for row in rows if (row["network"], row["size"]) == (network, size)]
        tables.append(f"{level} {network}, {size} x {size}\n\n{markdown(some)}")
    return "\n\n".join([said, *tables])


def of_gpu(rows: list[Data]) -> str:
    """Whole runs beside a GPU."""
    heads = "| | device, cores | windows | wall | sweep | pure forward / sweep | busy / sweep |"
    lines = [
        f"| {r['network']}, {r['size']} px, {r.get('form', 'torchscript')} {r['precision']}{_noted(r)} | "
        f"{r['device']}, {r['cores']} | "
        f"{r['window']}, {r['batch']} together | {r['wall_s']:.1f} s | {r['sweep_s']:.1f} s | "
        f"{r['pure_s'] / r['sweep_s']:.2f} | {r['busy']:.2f} |"
        for r in rows
    ]
    return "\n".join([heads, "|---|---|---|--:|--:|--:|--:|", *lines])


def _noted(row: Data) -> str:
    return f" ({row['note']})" if row.get("note") else ""


def of_forms(data: Data, *, alone: bool) -> str:
    """Whole runs in two forms; with each network alone, or how the whole lies."""
    rows = data["rows"]
    return "\n\n".join([_whole(rows, data["machine"]), _lanes(rows) if alone else f"{_middle(rows)}."])


def _whole(rows: list[Data], told: Data) -> str:
    here = f"{told['cores']} cores of {told['cpu']}, threads {told['threads']}; torch {told['torch']}"
    heads = (
        "whole run",
        "rounds",
        "torch fp32, wall / CPU s",
        "auto, wall / CPU s",
        "taken",
        "wall / CPU ratio",
    )
    lines = [f"{here}, {told['runtime']}.", "", f"| {' | '.join(heads)} | another class |", f"|{'---|' * 7}"]
    lines += [
        f"| {r['network']}, {r['size']} x {r['size']} | {r['rounds']} | {r['torchscript_wall_s']:.1f} / "
        f"{r['torchscript_cpu_s']:.1f} | {r['auto_wall_s']:.1f} / {r['auto_cpu_s']:.1f} | {r['taken']} | "
        f"{r['wall_s_ratio']:.2f} / {r['cpu_s_ratio']:.2f} | {r['disagreement']:.3%} |"
        for r in rows
    ]
    return "\n".join(lines)


def _lanes(rows: list[Data]) -> str:
    lines = ["| network alone, windows of the scene | form | Mpx/s | another class | only near-ties |"]
    lines += ["|---|---|---|---|---|"]
    for row in rows:
        for lane in row["bench"]:
            name, near = f"{lane['form']} {lane['precision']}", "yes" if lane["passes"] else "no"
            speed = f"{lane['mpx_per_s']:.3g} | {lane['disagreement']:.3%}"
            lines.append(f"| {row['network']} | {name} | {speed} | {near} |")
    return "\n".join(lines)


def _middle(rows: list[Data]) -> str:
    return "; ".join(
        f"{what}: median {statistics.median(r[key] for r in rows):.2f}, least {min(r[key] for r in rows):.2f}"
        for what, key in (("wall", "wall_s_ratio"), ("processor time", "cpu_s_ratio"))
    )


if __name__ == "__main__":
    keep(DOCS)
