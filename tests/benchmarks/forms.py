"""Forms of a network: whole runs with `--form auto --precision auto` against torch in fp32, in turns.

    python tests/benchmarks/forms.py --networks unet cheap --size 4096 --rounds 3
    python tests/benchmarks/forms.py --every --size 2048 --rounds 1  # half an hour

`models bench --scene` is run once a network, as a user does once a model and machine; it is not in the times.
Every run is a process of its own, from the call to the finished product, importing left out; wall and
processor time are told, ratios are taken within a round, then their median. Written to `docs/benchmarks.md`
and, under `forms`, to `docs/benchmarks.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from material import write_network, write_scene
from page import DOCS, keep
from peers import in_a_process, machine, read_runs

from citycover.model.archive import read_model_file
from citycover.model.builtin import NAMES, find_model
from citycover_models.catalogue.counts import read_facts, trained_facts
from citycover_models.export.network import export_preset

HERE = Path(__file__).resolve().parent

KEPT = "forms.jsonl"
"""Runs that are done, in the folder of the benchmark."""

SLOWEST = 0.06
"""Mpx/s in fp32, by `docs/models.md`, of a network that maps 2048 x 2048 in under two minutes."""

KINDS = {"torchscript": "fp32", "auto": "auto"}
"""Form, and the precision that goes with it."""


def a_round(scene: Path, model: Path, folder: Path) -> dict[str, Any]:
    """A run in each form, and how many pixels got another class."""
    found: dict[str, Any] = {}
    for kind, precision in KINDS.items():
        command = [sys.executable, HERE / "peers.py", "--map", scene, model, folder / kind, kind, precision]
        said, _ = in_a_process(command, {}, 3600)
        run = json.loads((folder / kind / "run.json").read_text())
        found[kind] = said | {
            "taken": f"{run['form']} {run['precision']}",
            "forward_s": run["stages"]["forward"],
        }
    maps = []
    for kind in KINDS:
        with rasterio.open(folder / kind / "landcover.tif") as file:
            maps.append(file.read(1))
    return found | {"disagreement": float(np.mean(maps[0] != maps[1]))}


def model_of(network: str, folder: Path) -> Path:
    """The model file of a benchmark's network, a built-in model, or a preset with random weights."""
    path = folder / f"{network}.pt"
    if network in NAMES:
        return Path(find_model(network))
    if network in ("unet", "cheap"):
        if not path.exists():
            write_network(network, path)
    elif not path.exists():
        export_preset(network, path, measure=False)
    return path


def every_network() -> list[str]:
    """Those of `models list` that map images of three or four bands, but for the slowest."""
    return [
        facts.name
        for facts in (*read_facts(), *trained_facts())
        if len(facts.bands) < 5 and (facts.mpx_per_s >= SLOWEST or facts.name in NAMES)
        if not facts.name.startswith("spectral-s2")
    ]


def measured(network: str, size: int, rounds: int, folder: Path, forms: Sequence[str]) -> dict[str, Any]:
    """A row: medians over rounds, those of an earlier call counted; what `models bench` said of forms."""
    model = model_of(network, folder)
    bands = len(read_model_file(model).card.groups[0].bands)
    scene = write_scene(folder, size, bands)
    known = [sys.executable, "-m", "citycover_cli", "models", "bench", model, "--scene", scene, "--json"]
    done = [run for run in read_runs(folder / KEPT) if (run["network"], run["size"]) == (network, size)]
    lanes = []
    if len(done) < rounds:
        lanes = [row for form in forms for row in run_bench([*known, "--form", form])]
    same = {"network": network, "size": size, "bench": lanes}
    for turn in range(len(done), rounds):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            done.append(a_round(scene, model, Path(place)) | same)
        print(network, size, f"round {turn + 1}:", json.dumps(done[-1]), flush=True)
        with (folder / KEPT).open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
    figures = {
        f"{kind}_{name}": statistics.median(run[kind][name] for run in done)
        for kind in KINDS for name in ("wall_s", "cpu_s", "forward_s")
    }  # fmt: skip
    ratios = {
        f"{name}_ratio": statistics.median(run["torchscript"][name] / run["auto"][name] for run in done)
        for name in ("wall_s", "cpu_s")
    }
    return {
        "network": network, "size": size, "rounds": rounds, "taken": done[-1]["auto"]["taken"],
        **figures, **ratios, "disagreement": done[-1]["disagreement"], "bench": done[-1]["bench"],
    }  # fmt: skip


def run_bench(command: list[str | Path]) -> list[dict[str, Any]]:
    """What `models bench` says."""
    import subprocess

    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", help="unet, cheap, a model or a preset; without it the first two, or --every"
    )
    parser.add_argument("--every", action="store_true", help="of `models list`, but for the slowest")
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-bench")
    parser.add_argument("--docs", type=Path, default=DOCS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ["CITYCOVER_CACHE"] = str(given.folder / "cache-of-forms")
    import torch

    from citycover.model.form import forms_here, runtime_of

    networks = given.networks or (every_network() if given.every else ["unet", "cheap"])
    # Compiling each takes longer than its runs, which are too short for that.
    forms = ("torchscript", "openvino") if given.every else ("auto",)
    rows = [measured(network, given.size, given.rounds, given.folder, forms) for network in networks]
    runtime = ", ".join(filter(None, map(runtime_of, forms_here()))) or "no other runtime"
    told = machine() | {"threads": torch.get_num_threads(), "runtime": runtime}
    keep(given.docs, **{"every network" if given.every else "forms": {"machine": told, "rows": rows}})


if __name__ == "__main__":
    main()
