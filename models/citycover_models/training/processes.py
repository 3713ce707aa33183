"""Several processes in one training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from citycover.errors import ConfigError
from citycover.machine.device import choose_device
from citycover_models.training.recipe import Recipe


def check_share(recipe: Recipe, world: int) -> None:
    """Processes that learn together see equally many chips of a step.

    Raises:
        ConfigError: the batch cannot be shared evenly.
    """
    if recipe.batch % world:
        raise ConfigError(
            f"{world} processes cannot share batches of {recipe.batch} chips evenly; give --set batch= a "
            f"multiple of {world}"
        )


@contextmanager
def join_processes(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world, device); joins the others where torchrun started this process."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device)
    if chosen.type == "cuda" and ":" not in device:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield 0, 1, chosen
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield rank, world, chosen
    finally:
        torch.distributed.destroy_process_group()
