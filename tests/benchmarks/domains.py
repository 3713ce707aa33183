"""What adaptation to another sensor gains: docs/domains.jsonl, and the tables of docs/methods.

    make domains                                                        small networks: all cells
    python tests/benchmarks/domains.py --systems lovecs --seeds 100     some of them: minutes
    python tests/benchmarks/domains.py --networks light                 the light recipes' own: many hours

What source and target are says `domain_cases.py`. All rows of a system have the same steps. Where a row
begins with weights, they are those of the source-only row on a practice city that no case has, and stand for
the public ones that a user would begin with. Cells that are done are kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from domain_cases import CASES, PRACTICE, Domains, five_times_coarser, second_camera
from rasterio.enums import Resampling
from small_networks import register
from table import between

from citycover.classes.legend import Legend
from citycover.evaluate.confusion import Confusion
from citycover.evaluate.rasters import compare_rasters
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.run.map import map_scene
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.data.prepare_targets import prepare_targets
from citycover_models.training import knowledge
from citycover_models.training.checkpoint import Checkpoint
from citycover_models.training.finish import finish
from citycover_models.training.loop import Run
from citycover_models.training.processes import join_processes
from citycover_models.training.recipe import Recipe, parse_recipe, read_recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import coarse_material_of, train
from citycover_models.training.trainee import Trainee
from citycover_models.weights.weights import load_weights

DOCS = Path(__file__).parents[2] / "docs"
KEPT = DOCS / "domains.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t, 97.5 %, by degrees of freedom."""

_THIRD = 5000
"""Seed of the practice city that weights to begin with come from."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train."""

    name: str
    over: str | None = None
    """The row that its gain is counted over."""
    method: dict[str, Any] = field(default_factory=dict)
    """Settings of the method that differ from the recipe's; a `name` clears the others."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Other settings that differ."""
    like: str | None = None
    """The row whose weights it has, so that it need not train: what differs is which statistics map."""
    coarse: bool = False
    """Learn and map in the target's pixels, and enlarge the map: nearest, and bicubic probabilities."""
    bound: bool = False
    """Learn from the target and its truth: what a network of this size and so many steps could reach."""


_X1 = {"network": "daformer-b0", "chip": 64}
"""Of a map in the target's pixels; three and a half times the ground of a chip of x5."""

_WIDE = {"chip": 320, "balance": "uniform"}
"""The least that a network of two resolutions takes."""

ROWS: dict[str, tuple[Row, ...]] = {
    "lovecs": (
        Row("source only", method={"name": "source-only"}, like="CSN"),
        Row("AdaBN", "source only", {"name": "adabn"}, like="CSN"),
        Row("CSN", "AdaBN", {"name": "csn", "warm_up": 0.5}),
        Row("CSN and self-training", "CSN", {"portion": 0.1, "statistics": "target"}),
        Row("the same, half believed", "CSN", {"portion": 0.5, "statistics": "target"}),
        Row("AdaBN, trusted by light", "source only", {"name": "adabn", "statistics": "auto"}, like="CSN"),
        Row("CSN, trusted by light", "source only", {"name": "csn", "statistics": "auto"}, like="CSN"),
        Row("self-training, trusted by light", "source only", {"portion": 0.1, "statistics": "auto"}),
        Row("the same, half believed and trusted", "source only", {"portion": 0.5, "statistics": "auto"}),
        Row("by the target's own labels", method={"name": "source-only"}, bound=True),
    ),
    "daspm": (
        Row("x1, source only", method={"target": "unseen"}, recipe=_X1, coarse=True),
        Row("x1, adapted", recipe=_X1, coarse=True),
        Row("x5, source only", method={"target": "unseen"}),
        Row("x5, source only, uniform", method={"target": "unseen"}, recipe={"balance": "uniform"}),
        Row("x5, source only, as taken", method={"target": "unseen", "degrade": 0.0}),
        Row(
            "x5, source only, uniform, as taken",
            method={"target": "unseen", "degrade": 0.0},
            recipe={"balance": "uniform"},
        ),
        Row("x5, adapted", "x5, source only"),
        Row("without rare-class sampling", "x5, adapted", recipe={"balance": "uniform"}),
        Row("without ClassMix", "x5, adapted", {"target": "plain"}),
        Row("without feature distance", "x5, adapted", {"feature_weight": 0.0}),
        Row("without the target's blur", "x5, source only, as taken", {"degrade": 0.0}),
        Row("with masked consistency", "x5, adapted", {"masked_weight": 1.0}),
        Row("with shares of coarse pixels", "x5, adapted", {"abundance_weight": 0.1}),
        Row("x5, source only, uniform, chips of 320", method={"target": "unseen"}, recipe=_WIDE),
        Row(
            "two resolutions, source only, uniform, chips of 320",
            "x5, source only, uniform, chips of 320",
            {"target": "unseen"},
            _WIDE | {"network": "daspm-hrda-b0"},
        ),
        Row("x5, adapted, uniform, chips of 320", "without rare-class sampling", recipe=_WIDE),
        Row(
            "two resolutions, uniform, chips of 320",
            "x5, adapted, uniform, chips of 320",
            recipe=_WIDE | {"network": "daspm-hrda-b0"},
        ),
        Row(
            "x5, by the target's own labels",
            method={"target": "unseen", "degrade": 0.0},
            recipe={"balance": "uniform"},
            bound=True,
        ),
    ),
}

CHANGES: dict[str, dict[str, Any]] = {
    "lovecs": {"chip": 64, "validation": 0.0},
    "daspm": {"batch": 1, "validation": 0.0, "balance": "rare"},
}
"""Changes of the light recipes, so that a cell takes minutes on a core; DASPM draws as published."""

_HELD = {"daspm": {"feature_weight": 0.005}}
"""Settings of a method that begins with weights."""


def recipe_of(system: str, row: Row, steps: int, ending: str = "") -> Recipe:
    """The light recipe with the changes of a row, in one epoch of so many steps."""
    light = read_recipe(f"{system}-light").model_dump(mode="json")
    fields = light | CHANGES[system] | row.recipe
    fields["network"] += ending
    method = row.method if "name" in row.method else light["method"] | _HELD.get(system, {}) | row.method
    chips = steps * fields["batch"]
    return parse_recipe(fields | {"method": method, "epochs": 1, "chips_per_epoch": chips})


@dataclass(frozen=True, slots=True)
class Cell:
    """One row on one place."""

    system: str
    case: str
    row: Row
    seed: int
    steps: int
    ending: str = ""
    """Of the network's name: `-small`."""

    def weights_of(self, row: str, work: Path) -> Path:
        """Where the weights of a row of the same place and steps are kept."""
        return work / f"{self.system}{self.ending}-{self.case}-{row}-{self.seed}-{self.steps}.safetensors"


def run(cell: Cell, place: Domains, work: Path, begin: Path | None = None) -> list[dict[str, Any]]:
    """Train, map, compare: a row of the table, or one for either way to enlarge."""
    torch.set_num_threads(1)
    row, system = cell.row, cell.system
    began = time.process_time()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder)
        labels = _in_pixels_of(place.labels, place.target, out) if row.coarse else place.labels
        image = _in_pixels_of(place.image, place.target, out) if row.coarse else place.image
        if row.bound:
            image, labels = place.target, place.truth
            if system == "daspm":
                image = _on_grid_of(place.target, place.truth, out)
        given = domains_of(image, labels, place, beside=() if row.bound else place.beside)
        request = TrainRequest(
            given, recipe_of(system, row, cell.steps, cell.ending), out / "run",
            seed=cell.seed, workers=0, measure=False, device="cpu", weights=begin,
        )  # fmt: skip
        if row.like:
            finish_with(cell.weights_of(row.like, work), request)
        else:
            train(request)
            if any(other.like == row.name for other in ROWS[system]):
                shutil.copy(out / "run" / "weights.safetensors", cell.weights_of(row.name, work))
        seconds = round(time.process_time() - began, 1)
        engine = EngineOptions(threads=1, device="cpu", precision="fp32")
        layers = ("probabilities",) if row.coarse else ()
        imagery = Imagery((str(place.target),))
        map_scene(
            MapRequest(imagery, out / "map", str(out / "run" / "model.pt"), engine=engine, layers=layers)
        )
        found = _scored(out / "map", place.truth, given.legend, coarse=row.coarse)
    same = {
        "system": system,
        "network": request.recipe.network,
        "case": cell.case,
        "seed": cell.seed,
        "steps": cell.steps,
        "cpu_s": seconds,
    }
    return [
        same | {"row": row.name + how, "miou": round(c.miou, 4), "accuracy": round(c.overall_accuracy, 4)}
        for how, c in found.items()
    ]


def finish_with(weights: Path, request: TrainRequest) -> None:
    """End a training as if its steps had led to these weights."""
    request.out.mkdir()
    steps = request.recipe.chips_per_epoch // request.recipe.batch
    with join_processes("cpu") as processes:
        material = coarse_material_of(request, request.training_set)
        trainee = Trainee(material.network(), request.recipe, None, processes)
        load_weights(trainee.kept, weights)
        finish(Run(request, material, trainee, Checkpoint("", step=steps), processes))


def domains_of(
    image: Path, labels: Path, place: Domains, beside: Sequence[tuple[Path, Path]] = ()
) -> TrainingSet:
    """Red, green and blue of both: what all cases have."""
    source = [ImageAndLabels(str(i), (str(t),)) for i, t in ((image, labels), *beside)]
    known = prepare_training_set(source, [place.legend], None, seen=Imagery((), _RGB))
    return prepare_targets(known, [ImageAndLabels(str(place.target), ())], seen=Imagery((), _RGB))


_RGB = ("red", "green", "blue")


def _scored(product: Path, truth: Path, legend: Legend, *, coarse: bool) -> dict[str, Confusion]:
    plain = compare_rasters(product / "landcover.tif", truth, legend)
    if not coarse:
        return {"": plain}
    smooth = enlarged(product / "probabilities.tif", truth, product / "bicubic.tif", legend)
    return {", nearest": plain, ", bicubic": compare_rasters(smooth, truth, legend)}


def enlarged(probabilities: Path, like: Path, out: Path, legend: Legend) -> Path:
    """The best classes of probabilities that were brought to the grid of a raster, bicubic."""
    with rasterio.open(like) as grid, rasterio.open(probabilities) as file:
        profile = dict(grid.profile, nodata=legend.nodata, dtype="uint8", count=1)
        values = file.read(
            out_shape=(file.count, grid.height, grid.width), resampling=Resampling.cubic, out_dtype="float32"
        )
    with rasterio.open(out, "w", **profile) as sink:
        sink.write(np.array(legend.ids, np.uint8)[values.argmax(0)], 1)
    return out


def _on_grid_of(image: Path, like: Path, folder: Path) -> Path:
    """An image brought to the grid of a finer raster, bicubic, as a network of five times enlarges it."""
    with rasterio.open(like) as grid, rasterio.open(image) as file:
        shape = (file.count, grid.height, grid.width)
        profile = dict(file.profile, height=grid.height, width=grid.width, transform=grid.transform)
        values, names = file.read(out_shape=shape, resampling=Resampling.cubic), file.descriptions
    out = folder / f"fine-{image.name}"
    with rasterio.open(out, "w", **profile) as sink:
        sink.write(values)
        sink.descriptions = names
    return out


def _in_pixels_of(raster: Path, like: Path, folder: Path) -> Path:
    """An image averaged, or classes by majority, in pixels as large as another's."""
    with rasterio.open(raster) as file, rasterio.open(like) as other:
        factor = round(other.transform.a / file.transform.a)
        classes = file.count == 1
        shape = (file.count, file.height // factor, file.width // factor)
        how = Resampling.mode if classes else Resampling.average
        profile = dict(file.profile, height=shape[1], width=shape[2])
        profile["transform"] = file.transform * file.transform.scale(factor)
        values, names = file.read(out_shape=shape, resampling=how), file.descriptions
    out = folder / f"coarse-{raster.name}"
    with rasterio.open(out, "w", **profile) as sink:
        sink.write(values)
        sink.descriptions = names
    return out


def beginning(system: str, work: Path, steps: int, ending: str) -> Path:
    """Weights that stand for public ones: source only, on a practice city of its own."""
    path = work / f"beginning-{system}{ending}-{steps}.safetensors"
    if path.is_file():
        return path
    make = second_camera if system == "lovecs" else five_times_coarser
    place, row = make(work, None, _THIRD), Row("", method={"target": "unseen", "feature_weight": 0.0})
    given = domains_of(place.image, place.labels, place)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder) / "run"
        train(
            TrainRequest(
                given, recipe_of(system, row, steps, ending), out, workers=0, measure=False, device="cpu"
            )
        )
        (out / "weights.safetensors").rename(path)
    return path


def table(system: str, case: str, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of one case: mean, 95 % interval over seeds, and the gain over the row that it names."""
    found = _by_row(r for r in rows if (r["system"], r["case"]) == (system, case))
    if not found:
        return ""
    if system == "daspm":
        found = _with_best(found)
    lines = ["| | seeds | steps | mIoU, % | gain | over |", "|---|---|---|---|---|---|"]
    over = {row.name: row.over for row in ROWS[system]} | dict.fromkeys(
        ("x5, source only", "x5, source only, uniform"), _BEST
    )
    for name, own in found.items():
        other = over.get(name)
        base = found.get(other, {}) if other else {}
        gains = [100 * (own[s]["miou"] - base[s]["miou"]) for s in own if s in base]
        steps = ", ".join(sorted({str(r["steps"]) for r in own.values()}))
        values = [100 * r["miou"] for r in own.values()]
        compared = other if gains else ""
        shown = (name, _seeds(own), steps, _text(values), _text(gains, sign=True), compared)
        lines.append("| " + " | ".join(str(cell or "") for cell in shown) + " |")
    return "\n".join(lines)


_BEST = "the best x1 of each seed, enlarged"

_ALONE = "x5, source only", "x5, source only, uniform"


def _by_row(rows: Iterable[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Row -> seed -> cell, rows in the order of the table."""
    order = {row.name: number for own in ROWS.values() for number, row in enumerate(own)}
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for r in sorted(rows, key=lambda r: order[_ENLARGED.sub("", r["row"])]):
        found.setdefault(r["row"], {})[r["seed"]] = r
    return found


def _with_best(found: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[int, dict[str, Any]]]:
    """With the best enlarged map of each seed, chosen by the truth: the strongest that x5 must beat."""
    coarse = {name: own for name, own in found.items() if name.startswith("x1")}
    seeds = {seed for own in coarse.values() for seed in own}
    best = {
        seed: max((own[seed] for own in coarse.values() if seed in own), key=lambda r: r["miou"])
        for seed in sorted(seeds)
    }
    return coarse | {_BEST: best} | {name: own for name, own in found.items() if name not in coarse}


def _seeds(own: dict[int, Any]) -> str:
    return ", ".join(str(seed) for seed in sorted(own))


def _text(values: list[float], *, sign: bool = False) -> str:
    if not values:
        return ""
    mean, freedom = statistics.mean(values), len(values) - 1
    text = f"{mean:+.1f}" if sign else f"{mean:.1f}"
    if not freedom:
        return text
    half = _T95.get(freedom, 1.96) * statistics.stdev(values) / math.sqrt(freedom + 1)
    return f"{text} ± {half:.1f}"


def write_docs(rows: Sequence[dict[str, Any]]) -> None:
    """Put the tables between the marks of each page."""
    for system, cases in CASES.items():
        made = []
        lengths = sorted({r["steps"] for r in rows if r["system"] == system}, reverse=True)
        for small, case, steps in itertools.product((True, False), cases, lengths):
            same = [r for r in rows if r["network"].endswith("-small") == small and r["steps"] == steps]
            if text := table(system, case, same):
                made.append(f"`{case}`, {'small networks' if small else 'the light recipe'}:\n\n{text}")
        if made:
            page = DOCS / "methods" / f"{system}.md"
            text = between(page.read_text(encoding="utf-8"), BEGIN, END, "\n\n".join(made))
            page.write_text(text, encoding="utf-8")


def main() -> None:
    """Run the cells that are not done yet, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", nargs="*", default=list(ROWS))
    parser.add_argument("--cases", nargs="*", help="without it, all; real ones where CITYCOVER_DATA is set")
    parser.add_argument("--networks", choices=("small", "light"), default="small")
    parser.add_argument("--rows", nargs="*", help="names of rows; without it, all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[100, 101, 102, 103, 104])
    parser.add_argument("--steps", type=int, help="of every row; without it, those of the system")
    parser.add_argument("--begin", type=int, help="steps of the weights to begin with; 0: none")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "citycover-domains")
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--no-doc", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    register()
    given.work.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in given.kept.read_text().splitlines()] if given.kept.is_file() else []
    _measure(given, rows)
    if not given.no_doc:
        write_docs(rows)


def _measure(given: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    knowledge._CHIPS = 8  # the maps here take no labels: what they would be weighed by need not be exact
    data = Path(text) if (text := os.environ.get("CITYCOVER_DATA")) else None
    for cell in _missing(given, rows, real=data is not None):
        place = CASES[cell.system][cell.case](given.work, data, cell.seed)
        learned = _BEGINS[cell.system] if given.begin is None else given.begin
        begin = beginning(cell.system, given.work, learned, cell.ending) if learned else None
        for found in run(cell, place, given.work, begin):
            rows.append(found | {"begin": learned})
            with given.kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)


def _missing(given: argparse.Namespace, rows: list[dict[str, Any]], *, real: bool) -> list[Cell]:
    """Cells that are asked for and not done; rows that others are like come first."""
    ending = "-small" if given.networks == "small" else ""
    done = {
        (r["system"], r["case"], _ENLARGED.sub("", r["row"]), r["seed"], r["steps"])
        for r in rows
        if r["network"].endswith("-small") == bool(ending)
    }
    return [
        Cell(system, case, row, seed, given.steps or _STEPS[system], ending)
        for seed in given.seeds  # outermost, so that half a table has every row
        for system in given.systems
        for case in given.cases or CASES[system]
        if case in CASES[system] and (case in PRACTICE or real)
        for row in sorted(ROWS[system], key=lambda row: row.like is not None)
        if (not given.rows or row.name in given.rows)
        and (system, case, row.name, seed, given.steps or _STEPS[system]) not in done
    ]


_STEPS = {"lovecs": 1000, "daspm": 1000}
"""Of every row."""

_BEGINS = {"lovecs": 0, "daspm": 500}
"""Steps of the weights to begin with: without them there is no feature to hold near."""

_ENLARGED = re.compile(", (nearest|bicubic)$")


if __name__ == "__main__":
    main()
