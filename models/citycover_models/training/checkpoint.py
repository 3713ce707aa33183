"""Checkpoints: everything a training needs to go on, replaced by an atomic rename."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from citycover.errors import ConfigError
from citycover.files.atomic import write_atomic


@dataclass
class Checkpoint:
    """The state after a step. Randomness of a step is drawn from (seed, step): no generator is kept."""

    identity: str
    """Hash of recipe, data and seed: another training does not go on from here."""
    step: int = 0
    """Steps done; also the position of the sampler."""
    network: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    mean: dict[str, Tensor] | None = None
    """Running mean of the weights, where the recipe keeps one."""
    teacher: dict[str, Tensor] | None = None
    """Weights of the network that labels the target, where a method has one."""
    best: float = -1.0
    """Best criterion so far."""
    best_epoch: int = -1
    falls: int = 0
    """How often the learning rate fell because the criterion stood still."""
    fell_epoch: int = -1
    """When it did so last."""
    kept: dict[str, float] = field(default_factory=dict)
    """Criterion of the weights that would be kept."""
    enough: bool = False
    """Training ended early: what is missing is the model file alone."""
    gradients: dict[str, Tensor] = field(default_factory=dict)
    """What was gathered since the weights moved; empty unless a recipe accumulates."""


def write_checkpoint(state: Checkpoint, path: Path) -> None:
    """Write, flush, rename: a reader sees the old checkpoint or the new one."""
    write_atomic(path, lambda file: torch.save(vars(state), file))


def read_checkpoint(path: Path, identity: str) -> Checkpoint:
    """The state to go on from.

    Raises:
        ConfigError: it cannot be read, is not what was written, or belongs to another training.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not look at them
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        state = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001 - a damaged archive, or pickle, fails in any way
        raise ConfigError(
            f"checkpoint {path} cannot be read: {error}; start again with --overwrite"
        ) from None
    if state.identity != identity:
        raise ConfigError(
            f"checkpoint {path} belongs to another training: recipe, images, labels, legend or seed changed; "
            "give the same ones to go on, or --overwrite to start again"
        )
    return state


def identity_of(*parts: object) -> str:
    """Hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
