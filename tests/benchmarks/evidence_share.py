"""How much of a sweep with labels their evidence is: its processor time against that of all the rest.

    python tests/benchmarks/evidence_share.py --size 1024 --network unet

Both times are of the thread that computes, in one and the same sweep, with one thread of torch; so other
load of the machine changes neither. With labels that count as clean, with noisy ones (a Gaussian,
and powers of more square roots), on the image's axes and on others; each without --change and with it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from material import CLASSES, write_network, write_scene
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from citycover.classes.table import ClassTable
from citycover.compute.choices import settle
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.evidence.cells import Sheet
from citycover.evidence.change import ChangeField
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.open import open_field
from citycover.evidence.rule import Rule
from citycover.geometry.window import Window
from citycover.job.job import prepare
from citycover.job.request import EngineOptions, Imagery
from citycover.machine.memory import tune_allocator
from citycover.model.predictor import ModelPredictor
from citycover.plan.columns import open_columns
from citycover.plan.layers import layers_of
from citycover.read.open import open_readers

CELL = 10
"""Pixels of the scene that a cell of the labels is wide."""


@dataclass
class Timed:
    """Evidence, and the processor time that it takes."""

    field: LabelField
    seconds: float = 0.0

    def __call__(self, probabilities: Tensor, window: Window) -> Tensor:
        """As the field does."""
        begin = time.thread_time()
        found = self.field(probabilities, window)
        self.seconds += time.thread_time() - begin
        return found


@dataclass
class TimedWatch(Timed):
    """Evidence that looks for change as well."""

    def watch(self, probabilities: Tensor, window: Window, seen: NDArray[np.bool_]) -> Tensor:
        """As the field does."""
        assert isinstance(self.field, ChangeField), "only such are watched"
        begin = time.thread_time()
        lost = self.field.watch(probabilities, window, seen)
        self.seconds += time.thread_time() - begin
        return lost


def random_sheet(path: Path, grid: GeoBox, turn: float, classes: int = CLASSES) -> Sheet:
    """Random labels of every class over a grid; with a turn, not along its axes."""
    shape = tuple(n // CELL + 1 for n in grid.shape)
    labels = np.random.default_rng(0).integers(1, classes + 1, shape).astype(np.uint8)
    transform = grid.transform * Affine.scale(CELL) * Affine.rotation(turn)
    profile = {"driver": "GTiff", "height": shape[0], "width": shape[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, crs=str(grid.crs), transform=transform) as out:
        out.write(labels, 1)
    table = ClassTable(np.arange(1, classes + 1), np.arange(classes).astype(np.int16), "benchmark")
    return Sheet(path, GeoBox(shape, transform, grid.crs), table)


def share(given: SweepInput, sheet: Sheet, noise: float, change: bool = False) -> dict[str, Any]:
    """Of one sweep: seconds of evidence and of the rest, and the first in per cent of the second."""
    even = (1 / CLASSES,) * CLASSES
    labels = LabelEvidence((sheet,), even, even, Rule(noise), change=change)
    field = open_field(labels, given.plan.grid, torch.device("cpu"))
    assert field is not None, "there are labels"
    timed = TimedWatch(field) if change else Timed(field)
    layers = layers_of("classes", change=change)
    again = SweepInput(given.plan, given.predictor, given.open_readers, evidence=timed, layers=layers)
    begin = time.thread_time()
    for column in open_columns(given.plan.blocks(), set()):
        for _ in sweep(again, column):
            pass
    rest = time.thread_time() - begin - timed.seconds
    per_cent = round(100 * timed.seconds / rest, 2)
    return {"evidence_s": round(timed.seconds, 3), "rest_s": round(rest, 3), "per_cent": per_cent}


def main() -> None:
    """Print a line a kind of labels."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--network", default="unet", choices=("unet", "cheap"))
    options = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.pt"
        write_network(options.network, model)
        scene = write_scene(Path(folder), options.size, 4)
        engine = EngineOptions(precision="fp32", threads=1)
        job = prepare(Imagery((str(scene),)), str(model), engine=engine)
        predictor = ModelPredictor.load(job.model.path, torch.device("cpu"))
        plan = settle(job, predictor).plan
        given = SweepInput(plan, predictor, open_readers(job.scene, 1))
        share(given, random_sheet(Path(folder) / "labels.tif", plan.grid, 0.0), 0.0)  # a heap that is warm
        kinds = (
            ("clean", 0.0, 0.0),
            ("noisy", 0.3, 0.0),
            ("clean, turned", 0.0, 1.0),
            ("noisy, turned", 0.3, 1.0),
        )
        for name, noise, turn in kinds:
            sheet = random_sheet(Path(folder) / "labels.tif", plan.grid, turn)
            print(json.dumps({"labels": name} | share(given, sheet, noise)), flush=True)
            watched = share(given, sheet, noise, change=True)
            print(json.dumps({"labels": f"{name}, --change"} | watched), flush=True)


if __name__ == "__main__":
    main()
