"""Accuracy of every method against plain cross-entropy and against the coarse labels: docs/accuracy.md.

    make accuracy                                        all cells: hours on two cores
    python tests/benchmarks/accuracy.py --cases city --recipes l2hnet-light --seeds 100   one cell: minutes

A cell is a case, a recipe, a method (the recipe's own, or plain cross-entropy on the same network with the
same steps) and a seed, which draws first weights, chips and, in practice cities, the city itself. Cells that
are done are kept in a file of JSON lines; the tables are made from whatever is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accuracy_cases import CASES, Case, band_numbers

if TYPE_CHECKING:
    from citycover_models.data.prepare import TrainingSet
    from citycover_models.training.recipe import Recipe
    from citycover_models.training.request import TrainRequest

DOC = Path(__file__).parents[2] / "docs" / "accuracy.md"
KEPT = Path(__file__).parents[2] / "docs" / "accuracy.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RECIPES = ("l2hnet-light", "paraformer-light", "vcnet-light", "c2fnet-light", "vhf-paranet-light")
_STEPS = {"city": 180}
"""Budget of a case: what the light recipes have; of real cases, of which there are many, half of it."""
_REAL_STEPS = 90
_WINDOW = 512
"""Side of the windows of a map: twice what most cards say, for less overlap."""
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


def run(cells: Sequence[Cell], case: Case, folder: Path, steps: int) -> list[dict[str, Any]]:
    """Train, map, compare: cells that differ in their method alone."""
    from citycover.machine.memory import tune_allocator

    tune_allocator()  # before torch is imported
    import torch

    torch.set_num_threads(1)
    from citycover.classes.legend import read_legend
    from citycover.classes.table import table_between
    from citycover.evaluate.rasters import compare_rasters
    from citycover.job.request import EngineOptions, Imagery, MapRequest
    from citycover.run.map import map_scene
    from citycover_models.data.prepare import prepare_training_set

    bands = band_numbers(case)
    learned = prepare_training_set(case.learn, [case.codes], case.to, bands=bands)
    table = table_between(read_legend(case.codes), learned.legend) if case.to else None
    coarse = compare_rasters(Path(case.coarse), Path(case.truth), learned.legend, table, table)
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as work:
        recipes = {cell: recipe_of(cell, case, steps) for cell in cells}
        for cell, (model, seconds) in train_methods(recipes, learned, Path(work)).items():
            out = Path(work) / cell.method / "product"
            numbers = tuple(bands) if bands else None
            engine = EngineOptions(window=_WINDOW, threads=1)
            map_scene(MapRequest(Imagery((case.image,), numbers), out, model, engine=engine))
            mapped = compare_rasters(out / "landcover.tif", Path(case.truth), learned.legend, None, table)
            found = {
                "steps": steps,
                "seconds": round(seconds, 1),
                "miou": mapped.miou,
                "accuracy": mapped.overall_accuracy,
                "iou": [None if math.isnan(v) else round(float(v), 4) for v in mapped.iou],
                "coarse_miou": coarse.miou,
                "coarse_accuracy": coarse.overall_accuracy,
            }
            rows.append(asdict(cell) | found)
    return rows


def recipe_of(cell: Cell, case: Case, steps: int) -> Recipe:
    """The cell's recipe with the case's changes, in so many steps."""
    from citycover_models.training.recipe import parse_recipe, read_recipe

    recipe = read_recipe(cell.recipe)
    fields = recipe.model_dump(mode="json") | case.changes
    fields |= {"epochs": 1, "chips_per_epoch": steps * recipe.batch}
    if cell.method == "ce":
        fields["method"] = {"name": "ce"}
    return parse_recipe(fields)


def train_methods(
    recipes: dict[Cell, Recipe], learned: TrainingSet, work: Path
) -> dict[Cell, tuple[str, float]]:
    """Train each recipe: model file and seconds.

    A method that begins with plain cross-entropy is, until then, the very training it is compared with. Those
    steps are done once; both go on from the same checkpoint, with the same result as if each had begun anew.
    """
    from citycover_models.training.folder import CHECKPOINT
    from citycover_models.training.request import TrainRequest
    from citycover_models.training.start import train

    requests = {
        cell: TrainRequest(learned, recipe, work / cell.method, seed=cell.seed, workers=0, measure=False)
        for cell, recipe in recipes.items()
    }
    seconds = 0.0
    shared = min(map(plain_steps, recipes.values()))
    if len(requests) > 1 and shared > 1:
        begin = time.perf_counter()
        first, *others = requests.values()
        stop_after(first, shared)
        for other in others:
            stop_after(other, 1)  # for the identity that its checkpoint must have
            hand_over(first.out / CHECKPOINT, other.out / CHECKPOINT)
        seconds = time.perf_counter() - begin
        requests = {cell: replace(request, resume=True) for cell, request in requests.items()}
    done = {cell: train(request) for cell, request in requests.items()}
    return {cell: (str(trained.model), seconds + trained.seconds) for cell, trained in done.items()}


def plain_steps(recipe: Recipe) -> int:
    """How many steps, from the first on, are plain cross-entropy on every head."""
    from citycover_models.methods.method import Moment

    steps = recipe.epochs * (recipe.chips_per_epoch or 0) // recipe.batch
    begins = getattr(recipe.method, "begins", lambda _moment: recipe.method.name == "ce")
    return sum(begins(Moment(step, steps, 0)) for step in range(steps))


def stop_after(request: TrainRequest, steps: int) -> None:
    """Train so many steps, and leave a checkpoint."""
    from citycover.errors import StoppedError
    from citycover_models.training.request import TrainWatch
    from citycover_models.training.start import train

    class Countdown(threading.Event):
        left = steps

        def is_set(self) -> bool:  # asked once a step, after it
            self.left -= 1
            return self.left <= 0

    with contextlib.suppress(StoppedError):
        train(request, TrainWatch(stop=Countdown()))


def hand_over(source: Path, target: Path) -> None:
    """Let the training of `target` go on from the state of `source`."""
    import torch

    state, identity = (torch.load(path, weights_only=True) for path in (source, target))
    torch.save(state | {"identity": identity["identity"]}, target)


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
    parser.add_argument("--steps", type=int, help="budget of a training; otherwise that of the case")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "citycover-accuracy")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2)))
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--no-doc", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.kept.read_text().splitlines()] if given.kept.is_file() else []
    done = {(r["case"], r["recipe"], r["method"], r["seed"], r["steps"]) for r in rows}
    tasks = [
        [Cell(case, recipe, method, seed) for method in given.methods]
        for number, seed in enumerate(given.seeds)  # outermost, so that half a table has every row
        for case in given.cases
        if case == "city" or number < 3
        for recipe in given.recipes
    ]
    budgets = {case: given.steps or _STEPS.get(case, _REAL_STEPS) for case in given.cases}
    missing = [[cell for cell in task if (*astuple(cell), budgets[cell.case]) not in done] for task in tasks]
    missing = [task for task in missing if task]
    data = os.environ.get("CITYCOVER_DATA")
    print(f"{sum(map(len, missing))} cells on {platform.processor() or platform.machine()}", flush=True)
    cases = [case_of(task[0], given.work, data) for task in missing]  # one after the other: some share files
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(run, task, case, given.work, budgets[task[0].case])
            for task, case in zip(missing, cases, strict=True)
        ]
        for future in as_completed(futures):
            for row in future.result():
                rows.append(row)
                with given.kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                what = f"{row['case']} {row['recipe']} {row['method']} {row['seed']}"
                print(f"{what}: mIoU {row['miou']:.3f}, coarse {row['coarse_miou']:.3f}", flush=True)
    if not given.no_doc:
        write_doc(rows)


if __name__ == "__main__":
    main()
