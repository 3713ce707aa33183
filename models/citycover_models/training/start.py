"""Begins a training, or goes on with one."""

from __future__ import annotations

import time

import torch

from citycover_models.catalogue.preset import AerialPreset
from citycover_models.catalogue.registry import find_aerial
from citycover_models.data.sampling import SamplePlan, plan_samples
from citycover_models.data.statistics import measure_statistics
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.training.checkpoint import Checkpoint, identity_of, read_checkpoint
from citycover_models.training.finish import finish
from citycover_models.training.folder import CHECKPOINT, training_folder
from citycover_models.training.loop import Run
from citycover_models.training.processes import Processes, check_share, join_processes
from citycover_models.training.record import write_plan
from citycover_models.training.request import Trained, TrainRequest, TrainWatch
from citycover_models.training.setup import (
    begin_with,
    build_network,
    class_weights_of,
    identity_of_weights,
    stamp_of,
    warn_of,
)
from citycover_models.training.trainee import Trainee


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
        join_processes(request.device) as processes,
        training_folder(
            request.out, resume=request.resume, overwrite=request.overwrite, rank=processes.rank
        ) as clear,
    ):
        check_share(recipe, processes.world)
        plan = plan_of(request)
        if processes.rank == 0:
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
        trainee = _trainee(request, preset, plan, statistics, processes)
        if state.step:
            trainee.restore(state)
        if not request.resume:
            clear()
        if processes.rank == 0:
            write_plan(request, plan, statistics)
        watch.planned(plan, state.step)
        run = Run(request, plan, statistics, trainee, state, processes)
        run.learn(watch)
        knowledge = finish(run, preset) if processes.rank == 0 else None
        seconds = time.perf_counter() - begin
        return Trained(request.out, request.out / "model.pt", state.step, seconds, state.kept, knowledge)


def _trainee(
    request: TrainRequest,
    preset: AerialPreset,
    plan: SamplePlan,
    statistics: AerialStatistics,
    processes: Processes,
) -> Trainee:
    """The network with the weights that a training begins with."""
    recipe = request.recipe
    torch.manual_seed(request.seed)
    network = build_network(preset, recipe, len(request.training_set.legend.ids), statistics)
    if request.weights:
        measured = {k: v.clone() for k, v in network.named_buffers() if "normalise" in k}
        begin_with(network, request.weights)
        network.load_state_dict(measured, strict=False)  # of these images, not of those before
    return Trainee(network, recipe, class_weights_of(plan, recipe), processes)


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
