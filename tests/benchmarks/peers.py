"""citycover against its peers: one scene, one TorchScript file, every figure that decides between them.

    python tests/benchmarks/peers.py --sizes 2048 4096 --repeats 3
    python tests/benchmarks/peers.py --networks unet --methods citycover monai-50 --sizes 8192
    python tests/benchmarks/peers.py --table                  # write the tables from the runs there are

Each run is a process of its own: citycover's from this environment, a peer's from that of the peers
(`peers.txt`), once as shipped and once with the allocator tuned as citycover tunes its own. A round runs
every method once, one after the other, and ratios are taken within a round. Finished runs are kept in a file
of JSON lines: started again, the script does what is missing, and failed runs once more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

OWN = {
    "forward": "pure forward of the plan's windows, fp32",
    "citycover": "fp32 by torch",
    "citycover-fp32": "fp32, form auto",
    "citycover-auto": "form and precision auto",
}
KINDS = {
    "citycover": ("torchscript", "fp32"),
    "citycover-fp32": ("auto", "fp32"),
    "citycover-auto": ("auto", "auto"),
}
"""Form and precision asked for."""
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1),
    "MALLOC_ARENA_MAX": "1",
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""What `citycover.machine.memory` sets from inside."""


@dataclass(frozen=True)
class Task:
    """One run to do."""

    network: str
    size: int
    method: str
    allocator: str
    """`shipped`, `tuned`, or `own` for what citycover always does."""
    round: int


class FailedRunError(Exception):
    """A run that ended badly; the message is the last line that it said."""


def tasks_of(given: argparse.Namespace) -> Iterator[Task]:
    """Rounds outermost, so that what else the machine does falls on all methods alike."""
    for turn in range(given.first, given.first + given.repeats):
        for network in given.networks:
            for size in given.sizes:
                for method in given.methods:
                    for allocator in ("own",) if method in OWN else given.allocators:
                        yield Task(network, size, method, allocator, turn)


def measure(task: Task, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run.

    Raises:
        FailedRunError: the process failed, or took longer than the limit.
    """
    from material import write_network, write_scene

    scene = write_scene(given.folder, task.size)
    model = given.folder / f"{task.network}.pt"
    if not model.exists():
        write_network(task.network, model)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        if task.method == "forward":
            return run_forward(scene, model, given)
        if task.method in OWN:
            run = run_citycover(task, scene, model, folder, given)
        else:
            run = run_peer(task, scene, model, folder, given)
        pixels = task.size**2
        run["mpx_per_s"] = pixels / 1e6 / run["wall_s"]
        run["cog"] = is_cog(Path(run["out"]))
        if task.size <= given.fidelity:
            run |= faithfulness(run, reference(scene, model, given))
        del run["out"], run["first_class"], run["nodata"]
        return run


def run_forward(scene: Path, model: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The network alone on as many windows as the plan has, as `forward_share.py` times it."""
    command = [sys.executable, HERE / "forward_share.py", "--inner", "forward", scene, model, "fp32", ""]
    said, used = in_a_process(command, {}, given.limit)
    del used["cpu_s"]  # with imports and the probe windows: no figure of the forward
    return {"wall_s": said["seconds"], "forward_share": 1.0, "setting": OWN["forward"]} | used


def run_citycover(
    task: Task, scene: Path, model: Path, folder: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """What `citycover map` does, timed as a peer is; the other figures are those of its own run.json."""
    form, precision = KINDS[task.method]
    command = [sys.executable, __file__, "--map", scene, model, folder / "out", form, precision]
    if form == "auto":
        know_the_forms(scene, model, given)
    said, used = in_a_process(command, {}, given.limit)
    run = json.loads((folder / "out" / "run.json").read_text())
    plan = run["plan"]
    setting = f"{plan['window'][0]}, trim {plan['trim']}, feather {plan['feather']}, {OWN[task.method]}"
    if form == "auto":
        setting += f" ({run['form']} {run['precision']} here)"
    return used | said | {
        "setting": setting,
        "sweep_s": run["sweep_s"],
        "forward_share": run["stages"]["forward"] / said["wall_s"],
        "redundancy": run["redundancy"],
        "out": str(folder / "out" / "landcover.tif"),
        "first_class": 1,
        "nodata": 0,
    }  # fmt: skip


def know_the_forms(scene: Path, model: Path, given: argparse.Namespace) -> None:
    """What a user does once a model and machine; it is not timed, as no export is."""
    command = [
        sys.executable,
        "-m",
        "citycover_cli",
        "models",
        "bench",
        model,
        "--scene",
        scene,
        "--repeats",
        "3",
    ]
    known = given.folder / f"forms-{model.stem}.txt"
    if not known.exists():
        in_a_process(command, {}, given.limit)
        known.touch()


def map_once(scene: Path, model: Path, out: Path, form: str, precision: str) -> None:
    """Import first, then start the clock: a benchmark of mapping, for citycover as for its peers."""
    from citycover.machine.memory import tune_allocator

    tune_allocator()
    import rasterio  # noqa: F401
    import torch  # noqa: F401

    from citycover.job.request import EngineOptions, Imagery, MapRequest
    from citycover.product import publish  # noqa: F401
    from citycover.run.map import map_scene

    engine = EngineOptions(precision=precision, form=form)
    request = MapRequest(Imagery((str(scene),)), out, str(model), engine=engine)
    begin, before = time.perf_counter(), time.process_time()
    map_scene(request)
    print(json.dumps({"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - before}))


def run_peer(task: Task, scene: Path, model: Path, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    from peer_runs import PEERS

    command = [given.peer_python, "-W", "ignore", HERE / "peer_runs.py", task.method, scene, model, folder]
    said, used = in_a_process(command, TUNED if task.allocator == "tuned" else {}, given.limit)
    peer = PEERS[task.method]
    share, redundancy = said.pop("forward_s") / said["wall_s"], said.pop("pushed") / task.size**2
    return used | said | {
        "setting": peer.setting,
        "package": f"{peer.package} {said.pop('version')}",
        "forward_share": share,
        "redundancy": redundancy,
    }  # fmt: skip


def in_a_process(
    command: list[str | Path], environment: dict[str, str], limit: float
) -> tuple[dict[str, Any], dict[str, float]]:
    """What a process said in its last line of JSON ({} without one), and its memory, seconds, processor time.

    Raises:
        FailedRunError: it failed or was ended at the limit.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=err, env=os.environ | environment
        )
        watch = threading.Timer(limit, process.kill)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        watch.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - begin
        out.seek(0)
        err.seek(0)
        said, wrong = out.read().splitlines(), err.read().splitlines()
    if process.returncode:
        last = wrong[-1].strip() if wrong else ""
        raise FailedRunError(f"exit {process.returncode} after {seconds:.0f} s: {last}"[:200])
    heard = json.loads(said[-1]) if said and said[-1].startswith("{") else {}
    processor = usage.ru_utime + usage.ru_stime
    return heard, {"peak_bytes": usage.ru_maxrss * 1024, "process_s": seconds, "cpu_s": processor}


def reference(scene: Path, model: Path, given: argparse.Namespace) -> Path:
    """One forward over the whole raster, reflected by trim + feather all around; made once."""
    path = given.folder / f"reference-{model.stem}-{scene.stem}.npy"
    if not path.exists():
        in_a_process([sys.executable, __file__, "--write-reference", scene, model, path], {}, given.limit)
    return path


def write_reference(scene: Path, model: Path, path: Path) -> None:
    """(y, x) best classes, counted from 0, of the file as loaded and in fp32."""
    import rasterio
    import torch

    from citycover.model.archive import read_model_file
    from citycover.model.network import load_torchscript

    card = read_model_file(model).card
    reach = card.trim + card.feather
    with rasterio.open(scene) as source:
        image = np.pad(source.read(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    with torch.inference_mode():
        scores = load_torchscript(model, "cpu")(torch.from_numpy(image)[None])[0]
    best = scores[:, reach:-reach, reach:-reach].argmax(0)
    np.save(path, best.to(torch.uint8).numpy())


def faithfulness(run: dict[str, Any], wanted: Path) -> dict[str, float | int]:
    import rasterio

    with rasterio.open(run["out"]) as source:
        written = source.read(1)
    classes = np.where(written == run["nodata"], 255, written - run["first_class"]).astype(np.uint8)
    expected = np.load(wanted)
    return {
        "disagreement": float((classes != expected).mean()),
        "frame_lost": frame_pixels_lost(classes, expected),
    }


def frame_pixels_lost(classes: NDArray[np.uint8], expected: NDArray[np.uint8]) -> int:
    """Border pixels without a class of their own.

    Those are pixels of nodata (255), and every pixel of an edge line that holds one class throughout where
    the reference has several: the weights were zero there, and the first class won by default.
    """
    lost = np.zeros(classes.shape, bool)
    for line in (np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]):
        single = np.unique(classes[line]).size == 1 and np.unique(expected[line]).size > 1
        lost[line] |= single | (classes[line] == 255)
    return int(lost.sum())


def is_cog(path: Path) -> bool:
    """Valid and without a warning: a raster of this size needs overviews."""
    from rio_cogeo import cog_validate

    return bool(cog_validate(path, strict=True, quiet=True)[0])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu, flags = platform.processor(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
        flags = ", ".join(name for name in ("amx_bf16", "avx512_bf16") if name in info.read_text().split())
    return {
        "cpu": cpu,
        "flags": flags,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "torch": version("torch"),
        "citycover": version("citycover"),
    }


def write_tables(runs: list[dict[str, Any]], docs: Path) -> None:
    """What was measured here into `benchmarks.json`, and its tables into `benchmarks.md`."""
    from page import keep, with_peers
    from peer_runs import PEERS
    from table import rows_of

    methods = [*OWN, *PEERS]
    pairs = sorted({(run["network"], run["size"]) for run in runs}, reverse=True)
    rows = [row for network, size in pairs for row in rows_of(runs, network, size, methods)]
    packages = sorted({run["package"] for run in runs if "package" in run})
    kept = docs / "benchmarks.json"
    before = json.loads(kept.read_text())["machines"] if kept.exists() else []
    keep(docs, machines=with_peers(before, {"machine": machine(), "packages": packages, "rows": rows}))


def read_runs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def arguments() -> argparse.Namespace:
    from page import DOCS
    from peer_runs import PEERS

    methods = [*OWN, *PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--networks", nargs="+", choices=("cheap", "unet"), default=["cheap", "unet"])
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods)
    parser.add_argument("--allocators", nargs="+", choices=("shipped", "tuned"), default=["shipped", "tuned"])
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to add more of them")
    parser.add_argument("--fidelity", type=int, default=2048, help="compare with one forward up to this size")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that one run may take")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "citycover-bench")
    parser.add_argument("--peer-python", type=Path, default=ROOT / ".bench-venv" / "bin" / "python")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="folder of benchmarks.md to write the tables to"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, write the tables")
    return parser.parse_args()


def main() -> None:
    if sys.argv[1:2] == ["--write-reference"]:
        write_reference(*map(Path, sys.argv[2:]))
        return
    if sys.argv[1:2] == ["--map"]:
        map_once(*map(Path, sys.argv[2:5]), *sys.argv[5:7])
        return
    given = arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    kept = given.folder / "runs.jsonl"
    keys = [field.name for field in fields(Task)]
    done = {tuple(run[key] for key in keys) for run in read_runs(kept) if "error" not in run}
    for task in () if given.table else tasks_of(given):
        if astuple(task) in done:
            continue
        try:
            run = asdict(task) | measure(task, given)
            said = f"{run['wall_s']:.1f} s"
        except FailedRunError as error:
            run = asdict(task) | {"error": str(error)}
            said = str(error)
        print(
            task.network, task.size, task.method, task.allocator, f"round {task.round + 1}:", said, flush=True
        )
        with kept.open("a") as lines:
            lines.write(json.dumps(run) + "\n")
    write_tables(read_runs(kept), given.docs)


if __name__ == "__main__":
    main()
