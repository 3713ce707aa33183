"""Begins a training, or goes on with one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import torch

from citycover_models.data.patch_set import PatchSet
from citycover_models.data.prepare import TrainingSet
from citycover_models.training.checkpoint import Checkpoint, identity_of, read_checkpoint
from citycover_models.training.coarse import CoarseMaterial
from citycover_models.training.domains import DomainsMaterial, check_domains
from citycover_models.training.finish import finish, finished_before
from citycover_models.training.folder import CHECKPOINT, training_folder
from citycover_models.training.loop import Run
from citycover_models.training.material import Material
from citycover_models.training.patches import PatchMaterial
from citycover_models.training.processes import Processes, check_share, join_processes
from citycover_models.training.record import write_plan
from citycover_models.training.request import Trained, TrainRequest, TrainWatch
from citycover_models.training.setup import begin_with, identity_of_weights
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
    check_share(request.recipe)
    with (
        join_processes(request.device) as processes,
        training_folder(
            request.out, resume=request.resume, overwrite=request.overwrite, rank=processes.rank
        ) as clear,
    ):
        material = material_of(request, processes, watch.stop)
        if processes.rank == 0:
            material.warn()
        identity = identity_of(
            request.recipe.model_dump(mode="json"),
            *material.identity,
            request.seed,
            identity_of_weights(request.weights),
        )
        if (result := finished_before(request, identity)) is not None:
            return _trained(request, result, time.perf_counter() - begin, before=True)
        state = Checkpoint(identity)
        if request.resume and (request.out / CHECKPOINT).is_file():
            state = read_checkpoint(request.out / CHECKPOINT, identity)
        trainee = _trainee(request, material, processes, watch.stop)
        if state.step:
            trainee.restore(state)
        if not state.step:
            clear()
        if processes.rank == 0:
            write_plan(request, material)
        watch.planned(material.describe(), state.step)
        run = Run(request, material, trainee, state, processes)
        run.learn(watch)
        result = processes.first(lambda: finish(run))
        return _trained(request, result, time.perf_counter() - begin, before=False)


def material_of(request: TrainRequest, processes: Processes, stop: threading.Event) -> Material:
    """What the request learns from."""
    if isinstance(request.training_set, PatchSet):
        return PatchMaterial(request, request.training_set, processes, stop)
    return coarse_material_of(request, request.training_set)


def coarse_material_of(request: TrainRequest, training_set: TrainingSet) -> CoarseMaterial:
    """Images with coarse labels, and a target domain if there is one."""
    check_domains(request, training_set)
    if training_set.target is not None:
        return DomainsMaterial(request, training_set, training_set.target)
    return CoarseMaterial(request, training_set)


def _trained(request: TrainRequest, result: Mapping[str, Any], seconds: float, *, before: bool) -> Trained:
    labels = {name: result[name] for name in ("labels", "label_noise", "label_cells") if name in result}
    return Trained(
        request.out, request.out / "model.pt", result["steps"], seconds, before, result["kept"], labels,
        result.get("test", {}),
    )  # fmt: skip


def _trainee(
    request: TrainRequest, material: Material, processes: Processes, stop: threading.Event
) -> Trainee:
    """The network with the weights that a training begins with."""
    torch.manual_seed(request.seed)
    network = material.network()
    if request.weights:
        measured = material.measured(network)
        begin_with(network, request.weights)
        network.load_state_dict(measured, strict=False)  # of these images, not of those before
    given = request.weights is not None
    return Trainee(network, request.recipe, material.class_weights, processes, pretrained=given, stop=stop)
