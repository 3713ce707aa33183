"""Begins a training, or goes on with one."""

from __future__ import annotations

import time

from citycover_models.catalogue.registry import find_aerial
from citycover_models.data.sampling import SamplePlan, plan_samples
from citycover_models.data.statistics import measure_statistics
from citycover_models.training.checkpoint import Checkpoint, identity_of, read_checkpoint
from citycover_models.training.folder import CHECKPOINT, training_folder
from citycover_models.training.loop import Run
from citycover_models.training.processes import check_share, join_processes
from citycover_models.training.record import write_plan
from citycover_models.training.request import Trained, TrainRequest, TrainWatch
from citycover_models.training.setup import identity_of_weights, stamp_of, warn_of


def train(request: TrainRequest, watch: TrainWatch | None = None) -> Trained:
    """Train a network; leaves `model.pt`, `weights.safetensors`, `metrics.jsonl` and figures in a folder.

    Raises:
        ConfigError: recipe, network, labels or an earlier run in the folder do not fit.
        TrainingError: the loss is no number any more; the batch is kept.
        StoppedError: `watch.stop` was set; `resume` goes on.
    """
    watch = watch or TrainWatch()
    begin = time.perf_counter()
    recipe, training_set = request.recipe, request.training_set
    preset = find_aerial(recipe.network)
    with (
        join_processes(request.device) as (rank, world, device),
        training_folder(request.out, resume=request.resume, overwrite=request.overwrite, rank=rank) as clear,
    ):
        check_share(recipe, world)
        plan = plan_of(request)
        if rank == 0:
            warn_of(plan, recipe, training_set.legend)
        statistics = measure_statistics(training_set.pairs, plan)
        identity = identity_of(
            recipe.model_dump(mode="json"),
            [
                (p.scene.identity, p.labels, [stamp_of(path) for path in p.paths], p.agree)
                for p in training_set.pairs
            ],
            training_set.legend.ids,
            request.seed,
            identity_of_weights(request.weights),
        )
        state = Checkpoint(identity)
        if request.resume and (request.out / CHECKPOINT).is_file():
            state = read_checkpoint(request.out / CHECKPOINT, identity)
        run = Run(request, preset, plan, statistics, state, device, rank, world)
        if not request.resume:
            clear()
        if rank == 0:
            write_plan(request, plan, statistics)
        watch.planned(plan, state.step)
        run.learn(watch)
        model = run.finish() if rank == 0 else request.out / "model.pt"
        return Trained(request.out, model, run.step, time.perf_counter() - begin, state.kept, run.knowledge)


def plan_of(request: TrainRequest) -> SamplePlan:
    """Which chips a training would see."""
    recipe, training_set = request.recipe, request.training_set
    return plan_samples(
        training_set.pairs,
        len(training_set.legend.ids),
        chip=recipe.chip,
        chips_per_epoch=recipe.epoch_chips(len(training_set.pairs)),
        balance=recipe.balance,
        validation=recipe.validation,
        seed=request.seed,
    )
