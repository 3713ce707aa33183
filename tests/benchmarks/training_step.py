"""How much longer a real training step takes than one on a batch that is there already.

    python tests/benchmarks/training_step.py [--rows 6]

A real step waits for chips that a worker process decodes and warps; a cached one learns from a batch kept in
memory. Both do the same arithmetic (l2hnet-light). They take turns in short rows, so that other load of the
machine meets both; the first steps of a row are not timed, because the worker has decoded their chips ahead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from citycover.synth.write import write_city
from citycover_models.catalogue.registry import find_aerial
from citycover_models.data.batches import LabelledBatch, training_batches
from citycover_models.data.chips import ChipReader
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import prepare_training_set
from citycover_models.data.statistics import measure_statistics
from citycover_models.methods.learner import Learner
from citycover_models.methods.method import Moment
from citycover_models.training.coarse import plan_of
from citycover_models.training.recipe import read_recipe
from citycover_models.training.request import TrainRequest
from citycover_models.training.setup import build_network, make_optimiser

_ROW, _AHEAD = 7, 3
"""Steps of a row, and those at its start that are not timed."""


def main() -> None:
    """Print medians in seconds and their ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=6, help="rows of four timed steps, of each kind")
    parser.add_argument("--size", type=int, default=1024, help="side of the city in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_city(Path(folder), options.size, 0)
        print(json.dumps(measure(Path(folder), options.rows), indent=1))


def measure(city: Path, rows: int) -> dict[str, float]:
    """Times of real and cached steps, taking turns.

    Args:
        city: folder of a synthetic city.
        rows: of steps, of each kind.
    """
    recipe = read_recipe("l2hnet-light")
    item = ImageAndLabels(str(city / "image.tif"), (str(city / "labels_10m.tif"),))
    request = TrainRequest(prepare_training_set([item], ["city"], None), recipe, city / "run")
    plan = plan_of(request, request.training_set)
    found = measure_statistics(request.training_set.pairs, plan)
    network = build_network(find_aerial(recipe.network), recipe, len(request.training_set.legend.ids), found)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    lesson, optimiser = Learner(network, recipe.method), make_optimiser(recipe.optimiser, network)
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(n).view(1, -1, 1, 1) for n in (found.mean, found.std))
    moment = Moment(90, 100, 0)  # past the warm-up: the published method

    def learn(batch: LabelledBatch) -> None:
        lesson(recipe.augment(batch, mean, std, generator), moment).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    batches = training_batches(
        ChipReader(request.training_set.pairs, found.mean), plan, batch=recipe.batch, first=0,
        last=1 + rows * _ROW, workers=1,
    )  # fmt: skip
    kept = next(batches)
    real, cached = [], []
    for _ in range(rows):
        real += _row(lambda: learn(next(batches)))
        cached += _row(lambda: learn(kept))
    slow, fast = statistics.median(real), statistics.median(cached)
    return {
        "steps": len(real),
        "real_s": round(slow, 4),
        "cached_s": round(fast, 4),
        "ratio": round(slow / fast, 3),
    }


def _row(step: Callable[[], None]) -> list[float]:
    """Seconds of the timed steps of a row."""
    times = []
    for _ in range(_ROW):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return times[_AHEAD:]


if __name__ == "__main__":
    main()
