"""How a cluster of this machine scales, with a network that sleeps as if a GPU computed.

    python tests/benchmarks/scaling.py                  # 1 s a batch, 64 blocks a worker, 1 and 8 workers
    python tests/benchmarks/scaling.py --sleep 0.1 --blocks 16
    python tests/benchmarks/scaling.py --huge           # 200,000 x 200,000: time to the first block, memory

Each number of workers maps a scene with so many blocks a worker. Steady state: from the moment when all
workers have finished a first block to the end, blocks a second against one worker's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))

BLOCK = 128
COLUMNS = 4
ROWS_OF_WINDOWS = 2
"""In a block, one batch each."""


def measure(workers: int, sleep: float, blocks: int, folder: Path) -> float:
    """Blocks a second, from the first block on to the last."""
    from making import make_scene, plan_of
    from standin import StandIn, make_store, run_on, standin_card

    from citycover.compute.cluster.connect import open_cluster
    from citycover.job.watch import Watch
    from citycover.product.folder import claim_folder

    step = BLOCK // ROWS_OF_WINDOWS
    card = standin_card(step + 12)
    rows = workers * blocks // COLUMNS
    plan = plan_of(make_scene((rows * BLOCK, COLUMNS * BLOCK)), card, block=(BLOCK, BLOCK), batch=16)
    assert plan.block_counts == (rows, COLUMNS)
    times: list[float] = []
    watch = Watch(advanced=lambda _block: times.append(time.perf_counter()))
    with open_cluster(workers, None) as client, claim_folder(folder / f"out-{workers}") as product:
        make_store(product.store, plan).close()
        client.wait_for_workers(workers)
        run_on(client, product, plan, StandIn(card, sleep), watch)
        product.clear()
    times.sort()
    begun = times[workers - 1]
    return (len(times) - workers) / (times[-1] - begun)


def huge(folder: Path) -> None:
    """A scene of 200,000 x 200,000: how soon the first block runs, what client and scheduler hold."""
    from making import make_scene, plan_of
    from standin import StandIn, make_store, run_on, standin_card

    from citycover.compute.cluster.connect import open_cluster
    from citycover.errors import StoppedError
    from citycover.job.watch import Watch
    from citycover.product.folder import claim_folder

    card = standin_card(1024 + 12)
    process = psutil.Process()
    stop = threading.Event()
    with open_cluster(2, None) as client, claim_folder(folder / "huge") as product:
        client.wait_for_workers(2)
        for module in ("citycover.run.map", "standin"):  # settling the plan imports torch in a real run
            client.run(importlib.import_module, module)
        begin = time.perf_counter()
        plan = plan_of(make_scene((200_000, 200_000)), card, batch=8)
        make_store(product.store, plan, cell=(512, 512)).close()
        seconds: list[float] = []

        def note(_windows: int) -> None:
            seconds.append(time.perf_counter() - begin)
            stop.set()

        with contextlib.suppress(StoppedError):
            run_on(client, product, plan, StandIn(card), Watch(predicted=note, stop=stop))
        product.clear()
    blocks = plan.block_counts[0] * plan.block_counts[1]
    print(f"{blocks} blocks; the client hears of the first row of windows after {seconds[0]:.1f} s")
    print(f"client and scheduler, one process: {process.memory_info().rss / 2**20:.0f} MiB resident")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sleep", type=float, default=1.0, help="seconds a batch")
    parser.add_argument("--blocks", type=int, default=64, help="blocks a worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--huge", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="citycover-scaling-") as name:
        if given.huge:
            huge(Path(name))
            return
        rates = {n: measure(n, given.sleep, given.blocks, Path(name)) for n in given.workers}
    first, *_ = rates
    print("| workers | blocks/s | times one worker | of ideal |\n|---|---|---|---|")
    for n, rate in rates.items():
        times = rate / rates[first] * first
        print(f"| {n} | {rate:.3f} | {times:.2f} | {times / n:.3f} |")


if __name__ == "__main__":
    main()
