"""How good maps are, as outputs of the product: docs/accuracy.md.

    make accuracy                                        all cells that are missing: hours on two cores
    python tests/benchmarks/accuracy.py --cases city --recipes l2hnet-light --seeds 100   one cell: minutes

A cell is a case, a variant of its labels, a recipe, a method and a seed, which draws first weights, chips
and, in practice cities, the city itself. It runs the commands of a user (`train`, `map`, `map --labels`) and
scores what stands in the product folders against the truth, which nothing else sees:

| output | what it is |
|---|---|
| labels | the coarse labels themselves, nearest: the figure to beat |
| bilinear | the coarse labels, each class interpolated: what costs nothing |
| network | `map`: the image alone |
| network + labels | `map --labels`: the product |
| boosting + labels | gradient boosting on colours and their surroundings in place of the network |
| bound, bound + labels | the same network trained on the fine truth of the other half of the area |

Cells that are done are kept in a file of JSON lines; the tables are made from whatever is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from accuracy_cases import CASES, VARIANTS, Case, variant_of
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject
from scores import near_edges, pooled, score

from citycover.classes.legend import Legend, read_legend
from citycover.classes.table import ClassTable, table_between

DOC = Path(__file__).parents[2] / "docs" / "accuracy.md"
KEPT = Path(__file__).parents[2] / "docs" / "accuracy.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RECIPES = ("l2hnet-light", "paraformer-light", "vcnet-light", "c2fnet-light", "vhf-paranet-light")
STEPS = 180
_BLOCKS = 8
"""The area is cut into so many squares a side; an upper bound learns on every other one."""
_BOOSTED = 40_000
"""Pixels that gradient boosting learns from."""


@dataclass(frozen=True)
class Cell:
    """One training, and what it is compared with."""

    case: str
    variant: str
    recipe: str
    method: str
    """`own` or `ce`."""
    seed: int
    steps: int = STEPS


@dataclass(frozen=True)
class Ground:
    """What a case is scored on: the grid of its truth."""

    truth: NDArray[np.int16]
    """(y, x) ranks in the legend that is compared in; negative: none."""
    nearest: NDArray[np.int16]
    """(y, x) rank of the coarse label over each pixel."""
    bilinear: NDArray[np.float32]
    """(class, y, x) the coarse label, each class interpolated between the centres of cells."""
    near: NDArray[np.bool_]
    """(y, x) within one cell of where the coarse label changes."""
    profile: dict[str, Any]
    legend: Legend


def ground_of(case: Case) -> Ground:
    """Read truth and coarse labels of a case onto the grid of the truth."""
    source = read_legend(case.codes)
    legend = read_legend(case.to) if case.to else source
    table = ClassTable.onto(legend, table_between(source, legend) if case.to else None)
    with rasterio.open(case.truth) as file:
        truth, profile = table.ranks_of(file.read(1)), dict(file.profile)
    with rasterio.open(case.coarse) as file:
        ranks, cells = table.ranks_of(file.read(1)), dict(file.profile)
        cell = max(1, round(abs(cells["transform"].a / profile["transform"].a)))
    nearest = warped(ranks, cells, profile, Resampling.nearest)
    planes = [
        warped((ranks == k).astype(np.float32), cells, profile, Resampling.bilinear)
        for k in range(len(legend.classes))
    ]
    return Ground(truth, nearest, np.stack(planes), near_edges(nearest, cell), profile, legend)


def warped(values: NDArray[Any], source: dict[str, Any], to: dict[str, Any], how: Resampling) -> NDArray[Any]:
    """An array (y, x) on another grid; -1 where it does not reach."""
    out = np.full((to["height"], to["width"]), -1, values.dtype)
    reproject(
        values, out, src_transform=source["transform"], src_crs=source["crs"], dst_transform=to["transform"],
        dst_crs=to["crs"], resampling=how, init_dest_nodata=False,
    )  # fmt: skip
    return out


def citycover(*words: object) -> None:
    """A command, as a user gives it.

    Raises:
        RuntimeError: with what it said.
    """
    command = [sys.executable, "-m", "citycover_cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")


def train(cell: Cell, case: Case, out: Path, labels: str | None = None) -> dict[str, Any]:
    """Train as the cell says; what the training left in words."""
    from citycover_models.training.recipe import read_recipe

    changes = case.changes | {"epochs": 1, "chips_per_epoch": cell.steps * read_recipe(cell.recipe).batch}
    if cell.method != "own":
        changes = changes | {"method.name": cell.method}
    begin = time.perf_counter()
    learned = ((case.image, labels),) if labels else case.elsewhere or ((case.image, case.coarse),)
    citycover(
        "train", "--recipe", cell.recipe, *(w for i, l in learned for w in ("--image", i, "--labels", l)),
        "--legend", case.codes, "--seed", cell.seed, "--workers", 0, "-o", out, "--quiet",
        *(("--to", case.to) if case.to else ()), *_bands(case),
        *(word for key, value in changes.items() for word in ("--set", f"{key}={value}")),
    )  # fmt: skip
    return {"seconds": round(time.perf_counter() - begin, 1)}


def map_case(case: Case, model: Path, out: Path, *, labels: bool) -> Path:
    """Map the case, with its labels as evidence or without."""
    with_labels = ("--labels", case.coarse, "--labels-legend", _meaning(case)) if labels else ()
    citycover("map", case.image, "--model", model, "-o", out, "--quiet", *_bands(case), *with_labels)
    return out


def _trust(record: dict[str, Any]) -> dict[str, Any]:
    """How noisy the labels were taken for; nothing of a map without them."""
    labels = record.get("labels") or {}
    return {"eta": round(1 - labels["trust"], 4)} if "trust" in labels else {}


def _bands(case: Case) -> tuple[str, ...]:
    return ("--bands", ",".join(case.bands)) if case.bands else ()


def _meaning(case: Case) -> str:
    return case.codes


def read_product(out: Path, ground: Ground) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Ranks and confidence (y, x) of a product on the grid of the truth."""
    with rasterio.open(out / "landcover.tif") as file:
        ranks, profile = ClassTable.onto(ground.legend).ranks_of(file.read(1)), dict(file.profile)
    with rasterio.open(out / "confidence.tif") as file:
        sure = file.read(1).astype(np.float32) / 255
    return warped(ranks, profile, ground.profile, Resampling.nearest), warped(
        sure, profile, ground.profile, Resampling.nearest
    )


def run(cell: Cell, case: Case, work: Path, *, references: bool = False) -> list[dict[str, Any]]:
    """Everything that is measured of one cell: a row an output."""
    ground = ground_of(case)
    rows = []

    def note(
        output: str, ranks: NDArray[Any], sure: NDArray[Any] | None, where: Any = None, **more: Any
    ) -> None:
        truth = ground.truth if where is None else np.where(where, ground.truth, -1).astype(np.int16)
        found = score(ranks, truth, len(ground.legend.classes), near=ground.near, confidence=sure)
        rows.append(asdict(cell) | {"output": output} | found.row() | more)

    note("labels", ground.nearest, None)
    note("bilinear", np.where(ground.bilinear.max(0) > 0, ground.bilinear.argmax(0), -1), None)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        said = train(cell, case, Path(folder) / "run")
        model = Path(folder) / "run" / "model.pt"
        for output, labels in (("network", False), ("network + labels", True)):
            product = map_case(case, model, Path(folder) / output.replace(" ", ""), labels=labels)
            record = json.loads((product / "run.json").read_text())
            note(output, *read_product(product, ground), **said, **_trust(record))
    if references:
        ranks, sure = boosted(case, ground, cell.seed)
        note("boosting + labels", ranks, sure)
        for name, (ranks, sure) in bound(cell, case, ground, work).items():
            note(name, ranks, sure)
    return rows


def boosted(case: Case, ground: Ground, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Gradient boosting on colours and their surroundings, with the labels as evidence by the same rule.

    Returns:
        Ranks and the probability of the best class (y, x).
    """
    from scipy.ndimage import uniform_filter
    from sklearn.ensemble import HistGradientBoostingClassifier

    with rasterio.open(case.image) as file:
        bands = np.nan_to_num(file.read().astype(np.float32))
        profile = dict(file.profile)
    planes = [
        warped(plane, profile, ground.profile, Resampling.bilinear)
        for band in bands
        for plane in (band, *(uniform_filter(band, size) for size in (3, 9, 17)))
    ]
    features = np.stack(planes, -1).reshape(-1, len(planes))
    ranks = ground.nearest.ravel()
    rng = np.random.default_rng(seed)
    known = np.flatnonzero(ranks >= 0)
    chosen = rng.choice(known, min(_BOOSTED, known.size), replace=False)
    model = HistGradientBoostingClassifier(random_state=seed).fit(features[chosen], ranks[chosen])
    given = model.predict_proba(features)
    p = np.full((features.shape[0], len(ground.legend.classes)), 1e-9, np.float32)
    p[:, model.classes_] = given
    logs = 0.5 * (np.log(p + 1e-9) - np.log(p.mean(0) + 1e-9))
    logs += np.log(ground.bilinear.reshape(p.shape[1], -1).T.clip(0) + 1e-5)
    logs -= logs.max(1, keepdims=True)
    posterior = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    shape = ground.truth.shape
    return posterior.argmax(1).reshape(shape), posterior.max(1).astype(np.float32).reshape(shape)


def bound(cell: Cell, case: Case, ground: Ground, work: Path) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """The network trained on the fine truth of every other square, judged on the rest, both ways round."""
    with rasterio.open(case.truth) as file:
        ids, profile = file.read(1), dict(file.profile)
    height, width = ids.shape
    rows = np.arange(height)[:, None] * _BLOCKS // height
    cols = np.arange(width)[None] * _BLOCKS // width
    nodata = profile["nodata"] if profile["nodata"] is not None else 255
    found: dict[str, list[NDArray[Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for half in (0, 1):
            learn = (rows + cols) % 2 == half
            path = Path(folder) / f"truth-{half}.tif"
            with rasterio.open(path, "w", **profile | {"nodata": nodata}) as sink:
                sink.write(np.where(learn, ids, nodata).astype(ids.dtype), 1)
            train(cell, case, Path(folder) / f"run-{half}", labels=str(path))
            model = Path(folder) / f"run-{half}" / "model.pt"
            for name, labels in (("bound", False), ("bound + labels", True)):
                out = map_case(case, model, Path(folder) / f"{name.replace(' ', '')}-{half}", labels=labels)
                ranks, sure = read_product(out, ground)
                found[name] += [np.where(learn, -1, ranks), np.where(learn, 0, sure)]
    return {
        name: (np.maximum(parts[0], parts[2]), np.maximum(parts[1], parts[3]))
        for name, parts in found.items()
    }


def case_of(cell: Cell, folder: Path, data: str | None) -> Case:
    """The place of a cell; its files are made if they are missing."""
    place = folder / cell.case
    place.mkdir(parents=True, exist_ok=True)
    return variant_of(CASES[cell.case](place, Path(data or ""), cell.seed), cell.variant, place, cell.seed)


def tables(rows: list[dict[str, Any]]) -> str:
    """Markdown of everything that is known."""
    lines: list[str] = []
    by: dict[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        key = (row["recipe"], row["method"], row["steps"], row["case"], row["variant"])
        by[key][row["output"]][row["seed"]] = row
    head = ("case", "labels are", "seeds", "labels", "bilinear", "network", "network + labels",
            "gain (worst seed)", "big classes", "accuracy", "near edges", "ECE: network",
            "ECE: + labels", "labels contradicted")  # fmt: skip
    for setting in dict.fromkeys(key[:3] for key in by):
        recipe, method, steps = setting
        how = "its own method" if method == "own" else "plain cross-entropy" if method == "ce" else method
        lines += ["", f"### `{recipe}`, {how}, {steps} steps", "", _row(head), _row(["---"] * len(head))]
        lines += [_case_row(key, outputs) for key, outputs in by.items() if key[:3] == setting]
    lines += _as_one(by)
    lines += _confidence(by)
    bounds = {key: outputs for key, outputs in by.items() if "bound + labels" in outputs}
    if bounds:
        head = ("case", "recipe", "seeds", "labels", "network + labels", "boosting + labels",
                "bound: image alone", "bound + labels", "share of the gap closed")  # fmt: skip
        lines += ["", "### How far it is to the bound", "", _row(head), _row(["---"] * len(head))]
        lines += [_bound_row(key, outputs) for key, outputs in bounds.items()]
    return "\n".join(lines).strip() + "\n"


_OUTPUTS = ("labels", "bilinear", "network", "network + labels")
DEFAULT = ("l2hnet-light", "ce")
DRAWN = ("city", "ontario")
"""Cases in which each seed is another place."""


def _case_row(key: tuple[Any, ...], outputs: dict[str, dict[int, dict[str, Any]]]) -> str:
    seeds = sorted(outputs["network + labels"])
    gains = [outputs["network + labels"][s]["miou"] - outputs["labels"][s]["miou"] for s in seeds]

    def both(column: str) -> str:
        one, two = (_points(outputs[o], column, seeds, spread=False) for o in ("labels", "network + labels"))
        return f"{one} -> {two}"

    return _row(
        [
            key[3], key[4], ", ".join(map(str, seeds)),
            *(_points(outputs[o], "miou", seeds) for o in _OUTPUTS),
            f"{100 * statistics.mean(gains):+.1f} ({100 * min(gains):+.1f})",
            both("big"), both("accuracy"), both("edge"),
            _points(outputs["network"], "ece", seeds), _points(outputs["network + labels"], "ece", seeds),
            _points(outputs["network + labels"], "eta", seeds),
        ]
    )  # fmt: skip


def _as_one(by: Mapping[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]]) -> list[str]:
    """Cases in which each seed is another place: all their pixels counted together."""
    head = ("case", "labels are", "places", "labels", "network + labels", "accuracy")
    lines = ["", "### Places counted as one", "", _row(head), _row(["---"] * len(head))]
    for (recipe, method, _, case, variant), outputs in by.items():
        maps, labels = outputs["network + labels"], outputs["labels"]
        known = [seed for seed, row in maps.items() if "pixels" in row and "pixels" in labels[seed]]
        if (recipe, method) != DEFAULT or not case.startswith(DRAWN) or len(known) < 2:
            continue
        one, two = (
            [100 * share for share in pooled(sum(np.array(rows[s]["pixels"]) for s in known))]
            for rows in (labels, maps)
        )
        named = [f"{one[0]:.1f}", f"{two[0]:.1f}", f"{one[1]:.1f} -> {two[1]:.1f}"]
        lines.append(_row([case, variant, ", ".join(map(str, sorted(known))), *named]))
    return lines if len(lines) > 5 else []


SEEN = 0.5
"""Share of what is wrong in labels that has to be contradicted where the noise counts as seen."""


def _confidence(by: Mapping[tuple[Any, ...], dict[str, dict[int, dict[str, Any]]]]) -> list[str]:
    """Calibration of all maps with labels, where the noise of the labels was seen and where it was not."""
    groups: dict[tuple[str, str, bool], list[tuple[float, str]]] = defaultdict(list)
    for (recipe, method, _, case, variant), outputs in by.items():
        maps, labels = outputs["network + labels"], outputs["labels"]
        wrong = statistics.mean(1 - labels[s]["accuracy"] for s in maps)
        seen = statistics.mean(row.get("eta", 0.0) for row in maps.values()) >= SEEN * wrong
        ece = 100 * statistics.mean(row.get("ece") or 0.0 for row in maps.values())
        groups[recipe, method, seen].append((ece, f"{case}, {variant}"))
    head = ("recipe", "noise of the labels", "rows", "ECE: median", "ECE: worst", "where")
    lines = ["", "### Whether confidence is meant as it is said", "", _row(head), _row(["---"] * len(head))]
    for (recipe, method, seen), found in groups.items():
        name = "seen: at least half of it is contradicted" if seen else "not seen"
        median, (worst, where) = statistics.median(ece for ece, _ in found), max(found)
        setting = f"`{recipe}`" if method == "ce" else f"`{recipe}`, {method}"
        lines.append(_row([setting, name, len(found), f"{median:.1f}", f"{worst:.1f}", where]))
    return lines


def _bound_row(key: tuple[Any, ...], outputs: dict[str, dict[int, dict[str, Any]]]) -> str:
    seeds = sorted(outputs["bound + labels"])
    mean = {o: statistics.mean(outputs[o][s]["miou"] for s in seeds) for o in outputs}
    gap = mean["bound + labels"] - mean["labels"]
    share = (mean["network + labels"] - mean["labels"]) / gap if gap > 0 else math.nan
    shown = ("labels", "network + labels", "boosting + labels", "bound", "bound + labels")
    columns = [f"{100 * mean[o]:.1f}" for o in shown]
    return _row([key[3], f"`{key[0]}`", ", ".join(map(str, seeds)), *columns, f"{share:.0%}"])


def _row(cells: Sequence[object]) -> str:
    return (
        "| " + " | ".join(map(str, cells)) + " |"
        if cells[0] != "---"
        else "|" + "|".join(map(str, cells)) + "|"
    )


def _points(
    rows: dict[int, dict[str, Any]], column: str, seeds: Sequence[int], *, spread: bool = True
) -> str:
    """Mean and standard deviation over seeds, in per cent."""
    values = [100 * rows[s][column] for s in seeds if rows[s].get(column) is not None]
    if not values:
        return "-"
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if spread and len(values) > 1 else f"{mean:.1f}"


def write_doc(rows: list[dict[str, Any]]) -> None:
    """Put the tables between the marks of docs/accuracy.md."""
    text = DOC.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    DOC.write_text(f"{head}{BEGIN}\n\n{tables(rows)}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Run the cells that are not done yet, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--variants", nargs="*", default=["clean"], choices=VARIANTS)
    parser.add_argument("--recipes", nargs="*", default=["l2hnet-light"])
    parser.add_argument("--methods", nargs="*", default=["ce"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[100, 101, 102])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--references", action="store_true", help="boosting and upper bounds, for the first seed"
    )
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "citycover-accuracy")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2)))
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--no-doc", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = [json.loads(line) for line in given.kept.read_text().splitlines()] if given.kept.is_file() else []
    names = tuple(Cell.__dataclass_fields__)
    done = {(*(r[n] for n in names), r["output"]) for r in rows}
    cells = [
        Cell(case, variant, recipe, method, seed, given.steps)
        for seed in given.seeds  # outermost, so that half a table has every row
        for variant in given.variants
        for recipe in given.recipes
        for method in given.methods
        for case in given.cases
    ]
    wanted = {cell: given.references and cell.seed == given.seeds[0] for cell in cells}
    missing = [
        c for c in cells if (*astuple(c), "bound + labels" if wanted[c] else "network + labels") not in done
    ]
    print(f"{len(missing)} cells on {platform.processor() or platform.machine()}", flush=True)
    data = os.environ.get("CITYCOVER_DATA")
    cases = {
        cell: case_of(cell, given.work, data) for cell in missing
    }  # one after the other: some share files
    with ThreadPoolExecutor(given.jobs) as pool:  # the work is done by processes
        futures = {
            pool.submit(run, cell, cases[cell], given.work, references=wanted[cell]): cell for cell in missing
        }
        for future in as_completed(futures):
            cell = futures[future]
            try:
                new = [r for r in future.result() if tuple(r[n] for n in (*names, "output")) not in done]
            except RuntimeError as error:
                print(f"{cell}: {error}", flush=True)
                continue
            rows += new
            with given.kept.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            said = ", ".join(f"{row['output']} {100 * row['miou']:.1f}" for row in new)
            print(f"{cell.case} {cell.variant} {cell.recipe} {cell.method} {cell.seed}: {said}", flush=True)
    if not given.no_doc:
        write_doc(rows)


if __name__ == "__main__":
    main()
