"""What a training begins with: processes and device, network, first weights, optimiser."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from citycover.errors import ConfigError, ModelError
from citycover.files.identity import FileStamp, sha256_of
from citycover_models.blocks.learnable import Learnable
from citycover_models.catalogue.preset import AerialPreset
from citycover_models.data.sampling import SamplePlan
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.methods.table import methods_for
from citycover_models.training.recipe import Optimiser, Recipe
from citycover_models.weights.weights import load_weights

logger = logging.getLogger(__name__)

_ENCODERS = ("backbone.", "encoder.")
"""How the names of an encoder's parameters begin."""


def build_network(
    preset: AerialPreset, recipe: Recipe, num_classes: int, statistics: AerialStatistics
) -> Learnable:
    """The network of a recipe for bands and classes in hand.

    Raises:
        ConfigError: the method needs what the network does not have.
    """
    if recipe.learn == "head":
        raise ConfigError(
            f"learn = head is for fusion networks; {preset.name} learns as a whole: --set learn=all"
        )
    network = preset.build_for(num_classes, statistics=statistics)
    check_method(network, preset.name, recipe)
    recipe.method.equip(network)
    check_chip(recipe.chip, network, preset.name)
    return network


def check_chip(chip: int, network: Learnable, name: str) -> None:
    """Raise ConfigError unless a network takes chips of so many pixels."""
    # Of a network whose output is finer, chips lie on the fine grid, and begin and end with a coarse pixel.
    multiple = math.lcm(network.multiple, getattr(network, "upscale", 1))
    if chip % multiple:
        near = max(multiple, round(chip / multiple) * multiple)
        raise ConfigError(
            f"chips of {chip} px do not fit {name}, which takes multiples of {multiple}; the nearest is "
            f"chip = {near}"
        )


def check_method(network: nn.Module, name: str, recipe: Recipe) -> None:
    """Raise ConfigError unless the network has what the recipe's method needs."""
    need = recipe.method.needs
    if not isinstance(network, need):
        raise ConfigError(
            f"method {recipe.method.name!r} needs a network with {need.__name__.lower()}; {name} "
            f"takes {', '.join(methods_for(network))}; give one of these by --set method.name="
        )


def make_optimiser(options: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe over all parameters that learn."""
    parameters = list(_groups(options, network))
    if options.name == "sgd":
        return torch.optim.SGD(
            parameters, options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
    kind = torch.optim.AdamW if options.name == "adamw" else torch.optim.Adam
    return kind(parameters, options.lr, weight_decay=options.weight_decay, amsgrad=options.amsgrad)


def _groups(options: Optimiser, network: nn.Module) -> Iterator[dict[str, Any]]:
    """Encoder and head, each decayed and not: those of them that have parameters.

    `times` is by what the learning rate is multiplied.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        head = options.head_times != 1 and not name.startswith(_ENCODERS)
        kept = any(part in name for part in options.no_decay)
        groups.setdefault((head, kept), []).append(parameter)
    for (head, kept), parameters in groups.items():
        decay = 0.0 if kept else options.weight_decay
        times = options.head_times if head else 1.0
        yield {"params": parameters, "weight_decay": decay, "times": times}


def class_weights_of(plan: SamplePlan, recipe: Recipe) -> list[float] | None:
    """Inverse square roots of the classes' shares among the labels, mean 1; 0 for a class without labels."""
    if recipe.class_weights == "none":
        return None
    shares = plan.label_counts / plan.label_counts.sum()
    weights = np.where(shares > 0, 1 / np.sqrt(np.maximum(shares, 1e-9)), 0)
    return [float(w) for w in weights / weights[shares > 0].mean()]


def identity_of_weights(path: Path | None) -> str | None:
    """Hash of the file that a training begins with.

    Raises:
        ModelError: there is none.
    """
    if path is None:
        return None
    if not path.is_file():
        raise ModelError(f"weights {path} are no file; give a .safetensors file")
    return sha256_of(path)


def begin_with(network: nn.Module, path: Path) -> None:
    """Load weights to fine-tune; a few tensors that fit by chance are not enough."""
    loaded = load_weights(network, path)
    logger.info("weights of %s: %s", path, loaded)
    if len(loaded.used) < len(loaded.missing):
        raise ModelError(
            f"weights {path} are of another network: {loaded}; give weights of this one, or of its "
            "encoder by citycover import-weights"
        )


def stamp_of(path: str) -> tuple[int, int] | None:
    """(bytes, modification time in ns) of a file; None of what is no file here."""
    stamp = FileStamp.of(path)
    return None if stamp is None else (stamp.size, stamp.mtime_ns)


def running_mean(network: nn.Module, decay: float | None) -> AveragedModel | None:
    """A running mean of weights and buffers; None without a decay."""
    if decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
