"""Several processes in one training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch

from citycover.errors import ConfigError
from citycover.machine.device import choose_device
from citycover_models.training.recipe import Recipe

_PATIENCE = timedelta(days=2)
"""How long processes wait while one of them labels a target as large as a city."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Those that learn together, as one of them sees them."""

    rank: int
    """Of this process; 0 judges, writes and talks."""
    world: int
    """How many they are."""
    device: torch.device
    """Of this process."""

    def anyone(self, flag: bool) -> bool:
        """Whether any process says so: they end after the same step, or one would wait for the others."""
        if self.world == 1:
            return flag
        said = torch.tensor(int(flag), device=self.device)
        torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
        return bool(said)

    def wait(self) -> None:
        """Go on once all have come here."""
        if self.world > 1:
            torch.distributed.barrier()

    def agreed(self, scores: dict[str, float]) -> dict[str, float]:
        """Scores of the first process, in all: statistics of BatchNorm differ a little between them."""
        if self.world > 1:
            shared = [scores]
            torch.distributed.broadcast_object_list(shared, device=self.device)
            (scores,) = shared
        return scores


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
def join_processes(device: str) -> Iterator[Processes]:
    """This process alone, or with the others where torchrun started it."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device)
    if chosen.type == "cuda" and ":" not in device:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(rank, world, chosen)
    finally:
        torch.distributed.destroy_process_group()
