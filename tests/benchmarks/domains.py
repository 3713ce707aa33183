"""What adaptation to another sensor gains: docs/domains.jsonl, and the tables of docs/methods.

    make domains                                                        all cells: hours on two cores
    python tests/benchmarks/domains.py --systems lovecs --seeds 100     one row of a table: minutes

Source and target are two practice cities. LoveCS: labels at 1 m of the first camera; then an image of the
second camera, with another gain and gamma, more blur, and pixels of 1.25 m. DASPM: labels at 2 m; then
another city, averaged to 10 m, whose classes of 2 m are wanted. All rows of a system have the same steps.
Cells that are done are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

DOCS = Path(__file__).parents[2] / "docs"
KEPT = DOCS / "domains.jsonl"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "lovecs": {
        "source only": {"method": {"name": "source-only"}},
        "AdaBN": {"method": {"name": "adabn"}},
        "CSN": {"method": {"name": "csn", "warm_up": 0.5}},
        "CSN and self-training": {},
    },
    "daspm": {
        "source only": {"mix": False},
        "without rare-class sampling": {"balance": "uniform"},
        "as it ships": {},
    },
}
"""Changes of the light recipe, row by row."""
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t, 97.5 %, by degrees of freedom."""
_SIZES = {"lovecs": 512, "daspm": 1280}
_OTHER = 1000
"""Added to a seed: the target is another city."""


def places(system: str, seed: int, folder: Path, size: int) -> dict[str, Path]:
    """Image and labels of the source, image and truth of the target."""
    from citycover.synth.write import write_city

    source, target = folder / f"{seed}-{size}", folder / f"{seed + _OTHER}-{size}"
    for place, number in ((source, seed), (target, seed + _OTHER)):
        if not (place / "truth.tif").is_file():
            write_city(place, size, number, second_sensor=True)
    if system == "lovecs":
        return {
            "image": source / "image.tif",
            "labels": source / "truth.tif",
            "target": target / "sensor_b" / "image.tif",
            "truth": target / "truth.tif",
        }
    return {
        "image": averaged(source / "image.tif", source / "image_2m.tif", 2),
        "labels": sampled(source / "truth.tif", source / "truth_2m.tif", 2),
        "target": averaged(target / "image.tif", target / "image_10m.tif", 10),
        "truth": sampled(target / "truth.tif", target / "truth_2m.tif", 2),
    }


def averaged(image: Path, out: Path, factor: int) -> Path:
    """The image in pixels so many times as large."""
    with rasterio.open(image) as file:
        pixels, profile, names = file.read(), dict(file.profile), file.descriptions
    bands, height, width = pixels.shape
    cells = pixels.reshape(bands, height // factor, factor, width // factor, factor)
    return _write(out, cells.mean((2, 4)).round().astype(np.uint8), profile, factor, names)


def sampled(classes: Path, out: Path, factor: int) -> Path:
    """Classes at the middles of pixels so many times as large."""
    with rasterio.open(classes) as file:
        pixels, profile = file.read(), dict(file.profile)
    return _write(out, pixels[:, factor // 2 :: factor, factor // 2 :: factor], profile, factor, None)


def _write(out: Path, pixels: Any, profile: dict[str, Any], factor: int, names: Any) -> Path:
    transform = profile["transform"] * Affine.scale(factor)
    given = profile | {"height": pixels.shape[1], "width": pixels.shape[2], "transform": transform}
    with rasterio.open(out, "w", **given) as file:
        file.write(pixels)
        if names:
            file.descriptions = names
    return out


def run(system: str, row: str, seed: int, steps: int, work: Path, size: int) -> dict[str, Any]:
    """Train, map, compare."""
    import torch

    from citycover.evaluate.rasters import compare_rasters
    from citycover.job.request import EngineOptions, Imagery, MapRequest
    from citycover.run.map import map_scene
    from citycover_models.data.pairs import ImageAndLabels
    from citycover_models.data.prepare import prepare_targets, prepare_training_set
    from citycover_models.training.recipe import parse_recipe, read_recipe
    from citycover_models.training.request import TrainRequest
    from citycover_models.training.start import train

    torch.set_num_threads(1)
    place = places(system, seed, work, size)
    source = ImageAndLabels(str(place["image"]), (str(place["labels"]),))
    known = prepare_training_set([source], ["city"], None)
    given = prepare_targets(known, [ImageAndLabels(str(place["target"]), ())])
    recipe = read_recipe(f"{system}-light")
    fields = recipe.model_dump(mode="json") | {"epochs": 1, "chips_per_epoch": steps * recipe.batch}
    for name, value in ROWS[system][row].items():
        (fields["method"] if name == "mix" else fields)[name] = value
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = Path(folder)
        request = TrainRequest(
            given, parse_recipe(fields), out / "run", seed=seed, workers=0, measure=False, device="cpu"
        )
        trained = train(request)
        seconds = time.perf_counter() - began
        engine = EngineOptions(threads=1, device="cpu", precision="fp32")
        imagery = Imagery((str(place["target"]),))
        map_scene(MapRequest(imagery, out / "product", str(trained.model), engine=engine))
        found = compare_rasters(out / "product" / "landcover.tif", place["truth"], known.legend)
    return {
        "system": system, "row": row, "seed": seed, "steps": steps, "size": size,
        "miou": found.miou, "accuracy": found.overall_accuracy, "seconds": round(seconds, 1),
    }  # fmt: skip


def table(system: str, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of one system: mean, 95 % interval over seeds, and the step from the row before."""
    lines = ["| | seeds | steps | mIoU, % | gain on the row before |", "|---|---|---|---|---|"]
    before: dict[int, float] = {}
    for row in ROWS[system]:
        found = {r["seed"]: r for r in rows if r["system"] == system and r["row"] == row}
        if not found:
            continue
        own = {seed: 100 * r["miou"] for seed, r in found.items()}
        gains = [own[seed] - before[seed] for seed in own if seed in before]
        seeds = ", ".join(str(seed) for seed in sorted(own))
        steps = ", ".join(sorted({str(r["steps"]) for r in found.values()}))
        lines.append(
            f"| {row} | {seeds} | {steps} | {_text(list(own.values()))} | {_text(gains, sign=True)} |"
        )
        before = own
    return "\n".join(lines)


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
    """Put each table between the marks of its page."""
    for system in ROWS:
        page = DOCS / "methods" / f"{system}.md"
        text = page.read_text(encoding="utf-8")
        if any(r["system"] == system for r in rows):
            head, tail = text.split(BEGIN)[0], text.split(END)[1]
            page.write_text(f"{head}{BEGIN}\n\n{table(system, rows)}\n\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Run the cells that are not done yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="*", default=list(ROWS))
    parser.add_argument("--rows", nargs="*", help="names of rows; without it, all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[100, 101, 102, 103, 104])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, help="side of a city in metres")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "citycover-domains")
    parser.add_argument("--kept", type=Path, default=KEPT)
    parser.add_argument("--no-doc", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given.work.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in given.kept.read_text().splitlines()] if given.kept.is_file() else []
    done = {(r["system"], r["row"], r["seed"], r["steps"]) for r in rows}
    for seed in given.seeds:  # outermost, so that half a table has every row
        for system in given.systems:
            for row in given.rows or ROWS[system]:
                if (system, row, seed, given.steps) in done:
                    continue
                size = given.size or _SIZES[system]
                rows.append(run(system, row, seed, given.steps, given.work, size))
                with given.kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    if not given.no_doc:
        write_docs(rows)


if __name__ == "__main__":
    main()
