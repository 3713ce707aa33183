"""Accuracy of every method against plain cross-entropy and against the coarse labels: docs/accuracy.md.

    make accuracy                                        all cells: hours on two cores
    python tests/benchmarks/accuracy.py --cases city --recipes l2hnet-light --seeds 100   one cell: minutes

A cell is a case, a recipe, a method (the recipe's own, or plain cross-entropy on the same network with the
same steps) and a seed, which draws first weights, chips and, in practice cities, the city itself. Cells that
are done are kept in a file of JSON lines; the tables are made from whatever is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from accuracy_cases import CASES, Case, band_numbers

DOC = Path(__file__).parents[2] / "docs" / "accuracy.md"
KEPT = Path(__file__).parents[2] / "docs" / "accuracy.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RECIPES = ("l2hnet-light", "paraformer-light", "vcnet-light", "c2fnet-light", "vhf-paranet-light")
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, 97.5 %, by degrees of freedom."""


@dataclass(frozen=True)
class Cell:
    """One training and what it is compared with."""

    case: str
    recipe: str
    method: str
    """`own` or `ce`."""
    seed: int


def run(cell: Cell, case: Case, folder: Path, steps: int) -> dict[str, Any]:
    """Train, map, compare."""
    import torch

    torch.set_num_threads(1)
    from citycover.accuracy import compare_rasters
    from citycover.classtable import table_between
    from citycover.legend import read_legend
    from citycover.product import MapRequest, map_scene
    from citycover_models.data.prepare import prepare_lessons
    from citycover_models.recipe import parse_recipe, read_recipe
    from citycover_models.train import TrainRequest, train

    lessons = prepare_lessons(case.learn, [case.codes], case.to, bands=band_numbers(case))
    recipe = read_recipe(cell.recipe)
    fields = recipe.model_dump(mode="json") | case.changes
    fields |= {"epochs": 1, "chips_per_epoch": steps * recipe.batch}
    if cell.method == "ce":
        fields["method"] = {"name": "ce"}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        request = TrainRequest(
            lessons, parse_recipe(fields), Path(work) / "run", seed=cell.seed, workers=0, measure=False
        )
        trained = train(request)
        seconds = time.perf_counter() - begin
        out = Path(work) / "product"
        bands = band_numbers(case)
        numbers = tuple(bands) if bands else None
        scene = MapRequest((case.image,), out, model=str(trained.model), bands=numbers, threads=1)
        map_scene(scene)
        legend = lessons.legend
        table = table_between(read_legend(case.codes), legend) if case.to else None
        mapped = compare_rasters(out / "landcover.tif", Path(case.truth), legend, None, table)
        coarse = compare_rasters(Path(case.coarse), Path(case.truth), legend, table, table)
    return {
        **asdict(cell),
        "steps": steps,
        "seconds": round(seconds, 1),
        "miou": mapped.miou,
        "accuracy": mapped.overall_accuracy,
        "iou": [None if math.isnan(v) else round(float(v), 4) for v in mapped.iou],
        "coarse_miou": coarse.miou,
        "coarse_accuracy": coarse.overall_accuracy,
    }


def case_of(cell: Cell, folder: Path, data: str | None) -> Case:
    """The place of a cell; its files are made if they are missing."""
    place = folder / cell.case
    place.mkdir(parents=True, exist_ok=True)
    return CASES[cell.case](place, Path(data or ""), cell.seed)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student); NaN for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, float("nan")
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return mean, _T95.get(len(values) - 1, 1.96) * math.sqrt(variance / len(values))


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown of everything that is known."""
    by: dict[tuple[str, str, int, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by[row["case"], row["recipe"], row["steps"], row["method"]][row["seed"]] = row
    lines: list[str] = []
    for case in dict.fromkeys(row["case"] for row in rows):
        head = ("recipe", "seeds", "steps", "coarse labels", "plain cross-entropy", "the method",
                "method - coarse", "method - plain")  # fmt: skip
        lines += ["", f"### {case}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for recipe, steps in dict.fromkeys((r["recipe"], r["steps"]) for r in rows if r["case"] == case):
            own, plain = by[case, recipe, steps, "own"], by[case, recipe, steps, "ce"]
            seeds = sorted(own.keys() & plain.keys())
            if not seeds:
                continue
            gain = [own[s]["miou"] - own[s]["coarse_miou"] for s in seeds]
            over = [own[s]["miou"] - plain[s]["miou"] for s in seeds]
            cells = [
                _points([own[s]["coarse_miou"] for s in seeds]),
                _points([plain[s]["miou"] for s in seeds]),
                _points([own[s]["miou"] for s in seeds]),
                _points(gain, sign=True),
                _points(over, sign=True),
            ]
            text = ", ".join(map(str, seeds))
            lines.append(f"| `{recipe}` | {text} | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines).strip() + "\n"


def _points(values: list[float], *, sign: bool = False) -> str:
    mean, half = interval([100 * v for v in values])
    spread = "" if math.isnan(half) else f" ± {half:.1f}"
    return f"{mean:+.1f}{spread}" if sign else f"{mean:.1f}{spread}"


def write_doc(rows: list[dict[str, Any]]) -> None:
    """Put the tables between the marks of docs/accuracy.md."""
    text = DOC.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    DOC.write_text(f"{head}{BEGIN}\n\n{tables(rows)}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Run the cells that are not done yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", default=["city", "zion", "s2", "buildings", "ontario"])
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--methods", nargs="*", default=["own", "ce"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[100, 101, 102, 103, 104])
    parser.add_argument("--steps", type=int, default=180)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "citycover-accuracy")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2)))
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--no-doc", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.kept.read_text().splitlines()] if given.kept.is_file() else []
    done = {(r["case"], r["recipe"], r["method"], r["seed"], r["steps"]) for r in rows}
    cells = [
        Cell(case, recipe, method, seed)
        for case in given.cases
        for recipe in given.recipes
        for seed in given.seeds[: None if case == "city" else 3]
        for method in given.methods
        if (case, recipe, method, seed, given.steps) not in done
    ]
    data = os.environ.get("CITYCOVER_DATA")
    print(f"{len(cells)} cells on {platform.processor() or platform.machine()}", flush=True)
    cases = [case_of(cell, given.work, data) for cell in cells]  # one after the other: some share files
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(run, cell, case, given.work, given.steps): cell
            for cell, case in zip(cells, cases, strict=True)
        }
        for future in as_completed(futures):
            row = future.result()
            rows.append(row)
            with given.kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            what = f"{row['case']} {row['recipe']} {row['method']} {row['seed']}"
            print(f"{what}: mIoU {row['miou']:.3f}, coarse {row['coarse_miou']:.3f}", flush=True)
    if not given.no_doc:
        write_doc(rows)


if __name__ == "__main__":
    main()
