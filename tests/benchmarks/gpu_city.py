"""A city on one GPU, end to end: how long it takes, and what of that is the network.

    python tests/benchmarks/gpu_city.py --size 92736 --network semantic-fpn-resnet50

The scene is made at once, see `write_repeated`. Pure forward is the time that the device takes for some full
batches of the run's windows, which lie in its memory, times the number of batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from evidence_share import random_sheet
from material import write_network, write_repeated
from page import of_gpu

from citycover.compute.choices import settle
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.open import open_field
from citycover.evidence.rule import Rule
from citycover.job.job import prepare
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.machine.cores import threads_here
from citycover.machine.device import choose_device
from citycover.machine.memory import tune_allocator
from citycover.model.archive import read_model_file
from citycover.model.bench import bench_model, lanes_possible
from citycover.model.checks import probe_windows
from citycover.model.predictor import ModelPredictor
from citycover.plan.columns import open_columns
from citycover.read.open import open_readers
from citycover.run.map import map_scene
from citycover_models.export.network import export_preset

BATCHES = 12


def network_of(name: str, folder: Path) -> Path:
    """The model file of a network, with random weights."""
    path = folder / f"{name}.pt"
    if name in ("unet", "cheap"):
        return write_network(name, path)
    export_preset(name, path, measure=False)
    return path


def pure_forward(model: Path, plan: dict[str, Any], slots: int) -> float:
    """Seconds for as many slots of batches as a run pushed, were there nothing else to do."""
    predictor = ModelPredictor.load(model, choose_device("auto")).at(plan["precision"], plan["form"])
    windows = probe_windows(
        predictor.card, tuple(plan["window"]), predictor.device, eight_bit=True, count=plan["batch"]
    )
    own = [window.contiguous(memory_format=torch.channels_last) for window in windows]
    for _ in range(3):
        predictor(own)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(BATCHES):
        predictor(own)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / BATCHES * slots / plan["batch"]


def mapped(scene: Path, model: Path, folder: Path, engine: EngineOptions) -> dict[str, Any]:
    """What the run says of itself."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return map_scene(
            MapRequest(Imagery((str(scene),)), Path(out) / "map", str(model), engine=engine)
        ).run.facts()


def print_labels(scene: Path, model: Path, precision: Any) -> None:
    """What labels of the place cost: the wall of a sweep with them and without, in turns."""
    job = prepare(Imagery((str(scene),)), str(model), engine=EngineOptions(precision=precision))
    predictor = ModelPredictor.load(model, choose_device("auto"))
    plan = settle(job, predictor).plan
    given = SweepInput(plan, predictor.at(plan.precision), open_readers(job.scene, None))
    channels = len(predictor.card.channels)
    even = (1 / channels,) * channels
    for name, noise, turn in (("clean", 0.0, 0.0), ("noisy", 0.3, 0.0), ("noisy, turned", 0.3, 1.0)):
        sheet = random_sheet(scene.with_name("labels.tif"), plan.grid, turn, channels)
        field = open_field(LabelEvidence((sheet,), even, even, Rule(noise)), plan.grid, predictor.device)
        turns = [(sweep_seconds(given), sweep_seconds(replace(given, evidence=field))) for _ in range(3)]
        ratio = statistics.median(with_labels / alone for alone, with_labels in turns)
        print(f"| labels, {name} | {ratio - 1:+.1%} of the sweep |", turns, flush=True)


def sweep_seconds(given: SweepInput) -> float:
    """Wall of one sweep."""
    begin = time.perf_counter()
    for column in open_columns(given.plan.blocks(), set()):
        for _ in sweep(given, column):
            pass
    return time.perf_counter() - begin


def main() -> None:
    """Print what docs/benchmarks.md and docs/benchmarks.json hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs="+", default=[92_736])
    parser.add_argument("--network", default="semantic-fpn-resnet50")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--form", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--forms", action="store_true", help="each precision as well")
    parser.add_argument("--labels", action="store_true", help="what evidence costs as well")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-bench")
    given = parser.parse_args()
    tune_allocator()
    given.folder.mkdir(parents=True, exist_ok=True)
    model = network_of(given.network, given.folder)
    bands = len(read_model_file(model).card.groups[0].bands)
    print(f"{given.network} on {torch.cuda.get_device_name(0)}", flush=True)
    for size in given.size:
        scene = write_repeated(given.folder, size, bands)
        engine = EngineOptions(precision=given.precision, form=given.form, threads=given.threads)
        run = mapped(scene, model, given.folder, engine)
        windows, plan = run["windows"], run["plan"]
        pure = pure_forward(model, plan, windows["slots"])
        row = {
            "network": given.network, "size": size, "precision": run["precision"], "form": plan["form"],
            "device": torch.cuda.get_device_name(0), "cores": threads_here(), "torch": torch.__version__,
            "window": plan["window"][0], "batch": plan["batch"], "wall_s": run["wall_s"],
            "sweep_s": run["sweep_s"], "pure_s": pure, "busy": run["forward_share"],
            "slots": windows["slots"] / max(1, windows["run"]), "redundancy": run["redundancy"],
            "peak_bytes": run["peak_rss_bytes"],
        }  # fmt: skip
        print(of_gpu([row]), flush=True)
        print("for docs/benchmarks.json:", json.dumps(row))
        print("stages:", json.dumps(run["stages"]), "beside:", json.dumps(run["beside"]), flush=True)
    if given.labels:
        print_labels(scene, model, given.precision)
    if given.forms:
        device = choose_device("auto")
        for row in bench_model(model, device, lanes_possible(device), window=plan["window"][0], batch=2):
            said = f"{row.disagreement:.2%} flip, {'only near-ties' if row.passes else 'too much'}"
            print(f"| {row.lane} | {row.mpx_per_s:.0f} Mpx/s | {row.note or said} |")


if __name__ == "__main__":
    main()
