"""Writes `facts.json`, `docs/models.md` and the diagrams.

python -m citycover_models.catalogue.document docs [NETWORK ...]
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from citycover.machine.memory import tune_allocator
from citycover_models.catalogue.counts import FILE, Facts, facts_of, read_facts, write_facts
from citycover_models.catalogue.drawing import draw_figure, parts_of
from citycover_models.catalogue.registry import NETWORKS, presets_of

logger = logging.getLogger(__name__)

_HEAD = """# The networks

Written by `python -m citycover_models.catalogue.document docs`; do not edit. `citycover models list` prints
the same numbers, `citycover models show NAME` draws one network, `citycover export NAME -o model.pt` writes
its file.

GFLOP/Mpx: 10^9 operations per 10^6 input pixels at the card's window, a multiplication with its addition
counted as two. Receptive field: measured by gradients of random weights; "window" where it reaches the whole
of it. Trim and feather are those of the preset's card; an export measures them for its weights. Mpx/s: input
pixels through the eager network in fp32 on 2 cores of an Intel Xeon at 2.5 GHz, one window at a time, one run
with other work beside it: good for telling slow networks from quick ones, not for more.
"""


def document(folder: Path, changed: Sequence[str] = NETWORKS) -> None:
    """Count and measure the networks that changed, then draw and write everything.

    Args:
        folder: gets `models.md` and `models/*.svg`.
        changed: modules of `citycover_models.nets`; the facts of the others are those that are there.
    """
    known = {row.name: row for row in read_facts()} if FILE.exists() else {}
    rows: list[Facts] = []
    for network in NETWORKS:
        presets = list(presets_of(network).values())
        for preset in presets:
            logger.info("%s", preset.name)
            rows.append(facts_of(preset) if network in changed else known[preset.name])
        figure = folder / "models" / f"{network}.svg"
        draw_figure(parts_of(presets[0]), f"{presets[0].name}: channels x rows x columns", figure)
    write_facts(tuple(rows))
    (folder / "models.md").write_text(page_of(rows), encoding="utf-8")


def page_of(rows: Sequence[Facts]) -> str:
    """`models.md`: a section a network, a row a preset."""
    sections = [_section(network, [row for row in rows if row.network == network]) for network in NETWORKS]
    return "\n".join([_HEAD, *sections])


_TABLE_HEAD = (
    "| preset | parameters | GFLOP/Mpx | receptive field | window | trim + feather | scale | Mpx/s |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _row(facts: Facts) -> str:
    field = "window" if facts.receptive_field is None else str(facts.receptive_field)
    window = f"{facts.window} only" if facts.fixed_window else f"{facts.window}, n x {facts.multiple}"
    return (
        f"| `{facts.name}` | {facts.parameters:,} | {facts.gflop_per_mpx:,.4g} | {field} | {window} "
        f"| {facts.trim} + {facts.feather} | {facts.output_scale} | {facts.mpx_per_s:.3g} |"
    )


def _section(network: str, rows: Sequence[Facts]) -> str:
    table = [_TABLE_HEAD, *map(_row, rows)]
    lines = [f"## {network}", "", rows[0].paper, "", *table, "", f"![{network}](models/{network}.svg)", ""]
    source = inspect.getsource(import_module(f"citycover_models.nets.{network}"))
    for where, paragraph in interpretations(source):
        lines += [f"{where}{paragraph}".replace("\n-", "\n\n-", 1), ""]
    return "\n".join(lines)


def interpretations(source: str) -> list[tuple[str, str]]:
    r"""Paragraphs of a module's docstrings that say what is citycover's own reading of a method.

    >>> interpretations('def dice():\n "One line.\\n\\nThis is citycover\'s interpretation."')
    [('`dice`: ', "This is citycover's interpretation.")]

    Returns:
        Where it stands ("" for the module itself, else the name), and the paragraph.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            where = "" if isinstance(node, ast.Module) else f"`{node.name}`: "
            paragraphs = (ast.get_docstring(node) or "").split("\n\n")
            found += [(where, p) for p in paragraphs if _OURS.search(p)]
    return found


_OURS = re.compile(r"citycover's\s+(interpretation|choices)")

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tune_allocator()
    document(Path(sys.argv[1]), sys.argv[2:] or NETWORKS)
