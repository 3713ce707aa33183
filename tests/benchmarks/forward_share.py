"""How much of the sweep is the network itself: pure forward of the plan's windows against the sweep's wall.

    python tests/benchmarks/forward_share.py --size 4096 --network unet --runs 3

Each figure comes from a process of its own; the two kinds of run alternate; medians and their ratio are
printed. Ratios of one invocation may be compared, seconds of different machines may not.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from citycover.machine.memory import tune_allocator

HERE = Path(__file__).resolve().parent


def pure_forward(scene: str, model: str, precision: str, _layers: str) -> dict[str, float]:
    """Seconds for as many windows as the plan has, on real pixels that lie in memory."""
    import time

    import torch

    from citycover.compute.choices import settle
    from citycover.compute.trials import sample_windows
    from citycover.job.job import prepare
    from citycover.job.request import EngineOptions, Imagery
    from citycover.machine.device import choose_device
    from citycover.model.predictor import ModelPredictor
    from citycover.read.open import open_readers

    job = prepare(Imagery((scene,)), model, engine=EngineOptions(precision=precision))
    predictor = ModelPredictor.load(job.model.path, choose_device("auto"))
    plan = settle(job, predictor).plan
    predictor = predictor.at(plan.precision, plan.form)
    samples = sample_windows(plan, job.model.card, open_readers(job.scene, None), 4 * plan.window_pixels)
    together = [
        [torch.cat([group] * plan.batch).to(predictor.device) for group in sample] for sample in samples
    ]  # windows that lie on the device, as full as the plan's batches
    predictor(together[0])
    begin = time.perf_counter()
    for index in range(plan.y.count * math.ceil(plan.x.count / plan.batch)):
        scores = predictor(together[index % len(together)])
    scores.sum().item()  # waits for the device
    return {"seconds": time.perf_counter() - begin, "windows": plan.windows}


def whole_map(scene: str, model: str, precision: str, layers: str) -> dict[str, float]:
    """Figures of a real run."""
    from citycover.job.request import EngineOptions, Imagery, MapRequest
    from citycover.run.map import map_scene

    with tempfile.TemporaryDirectory() as folder:
        request = MapRequest(
            Imagery((scene,)),
            Path(folder) / "out",
            model,
            engine=EngineOptions(precision=precision),
            layers=tuple(filter(None, layers.split(","))),
        )
        run = map_scene(request).run.facts()
    keys = ("sweep_s", "wall_s", "forward_share", "redundancy", "peak_rss_bytes", "pixels")
    return {key: run[key] for key in keys} | {"stages": run["stages"], "beside": run["beside"]}


def in_a_process(mode: str, *arguments: str) -> dict[str, float]:
    command = [sys.executable, str(HERE / "forward_share.py"), "--inner", mode, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--network", default="unet", help="unet, cheap, or a name of `citycover models list`")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-bench")
    parser.add_argument("--layers", default="", help="layers on request, e.g. probabilities,entropy")
    parser.add_argument("--inner", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    tune_allocator()
    if given.inner:
        mode, scene, model, precision, layers = given.inner
        run = pure_forward if mode == "forward" else whole_map
        print(json.dumps(run(scene, model, precision, layers)))
        return
    sys.path.insert(0, str(HERE))
    from material import write_network, write_scene

    from citycover.model.archive import read_model_file
    from citycover_models.export.network import export_preset

    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / f"{given.network}.pt"
    if given.network in ("unet", "cheap"):
        write_network(given.network, path)
    else:
        export_preset(given.network, path, measure=False)
    bands = len(read_model_file(path).card.groups[0].bands)
    model, scene = str(path), str(write_scene(given.folder, given.size, bands))
    alone, sweeps = [], []
    for _ in range(given.runs):
        alone.append(in_a_process("forward", scene, model, given.precision, given.layers))
        sweeps.append(in_a_process("map", scene, model, given.precision, given.layers))
    pure = statistics.median(a["seconds"] for a in alone)
    sweep = statistics.median(s["sweep_s"] for s in sweeps)
    middle = sorted(sweeps, key=lambda s: s["sweep_s"])[len(sweeps) // 2]
    print(f"| {given.network}, {given.size} x {given.size}, {given.precision}, median of {given.runs} | |")
    print("|---|---|")
    print(f"| pure forward alone | {pure:.1f} s |")
    print(f"| sweep, first read to last shard | {sweep:.1f} s |")
    print(f"| pure forward / sweep | {pure / sweep:.3f} |")
    print(f"| forward inside the sweep / sweep | {middle['forward_share']:.3f} |")
    print(f"| start and publish / wall | {1 - middle['sweep_s'] / middle['wall_s']:.3f} |")
    print(f"| redundancy | {middle['redundancy']:.3f} |")
    print(f"| peak resident memory | {middle['peak_rss_bytes'] / 2**20:.0f} MiB |")
    print(f"| wall | {middle['wall_s']:.1f} s |")
    print(f"| unique Mpx/s | {middle['pixels'] / 1e6 / middle['wall_s']:.2f} |")
    print("stages:", middle["stages"], "beside:", middle["beside"])


if __name__ == "__main__":
    main()
