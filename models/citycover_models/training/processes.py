"""Several processes in one training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch

from citycover.errors import CitycoverError, ConfigError, StoppedError
from citycover.machine.device import choose_device
from citycover_models.training.recipe import Recipe

T = TypeVar("T")

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

    def first(self, work: Callable[[], T]) -> T:
        """What the first process makes of something, in all.

        Raises:
            StoppedError: the first was told to end meanwhile; in all, or they would wait for it.
            CitycoverError: the first found what the user must mend; likewise.
        """
        if self.world == 1:
            return work()
        shared: list[T | StoppedError | CitycoverError | None] = [None]
        if self.rank == 0:
            try:
                shared = [work()]
            except (StoppedError, CitycoverError) as error:
                shared = [error]
        torch.distributed.broadcast_object_list(shared, device=self.device)
        if isinstance(shared[0], (StoppedError, CitycoverError)):
            raise shared[0]
        return cast("T", shared[0])


def check_share(recipe: Recipe) -> None:
    """Processes that learn together see equally many chips of a step.

    To be asked before they join: who leaves while others still connect takes them along.

    Raises:
        ConfigError: the batch cannot be shared evenly.
    """
    world = _world()
    if recipe.batch % world:
        raise ConfigError(
            f"{world} processes cannot share batches of {recipe.batch} chips evenly; give --set batch= a "
            f"multiple of {world}"
        )


def _world() -> int:
    """How many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """This process alone, or with the others where torchrun started it."""
    world, rank = _world(), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device)
    if chosen.type == "cuda" and ":" not in device:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    together = Processes(rank, world, chosen)
    try:
        yield together
        together.wait()  # who leaves earlier takes its connections from those that still use them
    finally:
        torch.distributed.destroy_process_group()
