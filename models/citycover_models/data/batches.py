"""Batches of chips for the loop, the same for any number of processes."""

from __future__ import annotations

import signal
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from citycover.errors import CitycoverError, MachineError
from citycover_models.data.chips import ChipReader, as_planes
from citycover_models.data.labels import IGNORE
from citycover_models.data.sampling import SamplePlan

_RARE = 0.003
"""Share of a chip that is worth drawing it for the sake of a rare class; half of it must be met."""

_RARE_ATTEMPTS = 10

ATTEMPTS = 8
"""Chips drawn before one with too few labelled pixels is taken as it is."""


class Batch(Protocol):
    """What is learned from together in one step, of any kind of data."""

    @property
    def pixels(self) -> int:
        """How much it is: pixels of the finest band."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything in it, by name; images first."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Chips that are learned from together."""

    images: Tensor
    """(n, band, y, x) raw digital numbers; invalid pixels hold the fill of their band."""
    labels: Tensor
    """(n, y, x) int64 channels; `IGNORE` where there is none or the image is invalid."""
    class_weights: Tensor | None = None
    """(channel,), mean 1; None: all classes weigh the same."""
    target: LabelledBatch | None = None
    """Chips of the other domain beside them, where a method asks for some. Their labels are pseudo-labels, or
    0 wherever the image is valid while there are none."""

    @property
    def pixels(self) -> int:
        """Labelled or not."""
        return self.labels.numel()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Images and labels."""
        own = {"images": self.images, "labels": self.labels}
        if self.target is None:
            return own
        return own | {f"target_{name}": tensor for name, tensor in self.target.tensors.items()}

    def to(self, device: torch.device) -> Self:
        """The same chips on a device."""
        images = self.images.to(device, non_blocking=True)
        labels = self.labels.to(device, non_blocking=True)
        target = None if self.target is None else self.target.to(device)
        return replace(self, images=images, labels=labels, target=target)


class Drawn(Dataset[tuple[Tensor, ...] | CitycoverError]):
    """(epoch, index) -> tensors of what an epoch draws, for processes that decode."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, ...] | CitycoverError:
        """The tensors; or what is wrong, as a value, because a raised error leaves a worker as text."""
        try:
            return self.draw(*key)
        except CitycoverError as error:
            return type(error)(str(error))  # its causes may not travel between processes

    @abstractmethod
    def draw(self, epoch: int, index: int) -> tuple[Tensor, ...]:
        """Decode one.

        Raises:
            CitycoverError: it cannot be used.
        """


class _Chips(Drawn):
    """(epoch, index) -> one chip of the plan, or of its validation where the epoch is negative."""

    def __init__(self, reader: ChipReader, plan: SamplePlan, least: float) -> None:
        self._reader, self._plan, self._least = reader, plan, least

    def draw(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Pixels and channels of one chip."""
        if epoch < 0:
            pixels, channels = self._reader.read(self._plan.validation[index])
            return as_planes(pixels), torch.from_numpy(channels)
        attempts = _RARE_ATTEMPTS if self._plan.balance == "rare" else ATTEMPTS
        for attempt in range(attempts):
            chip = self._plan.draw(epoch, index, attempt)
            pixels, channels = self._reader.read(chip)
            wanted = max(50, _RARE * channels.size) / 2 if chip.wanted >= 0 else 0
            if (channels != IGNORE).mean() >= self._least and (channels == chip.wanted).sum() >= wanted:
                break
        return as_planes(pixels), torch.from_numpy(channels)


class Steps(Sampler[list[tuple[int, int]]]):
    """Keys (epoch, index) of the chips of each step from `first` on; the share of one process of several."""

    def __init__(self, per_epoch: int, batch: int, first: int, last: int, rank: int, world: int) -> None:
        self._per_epoch = per_epoch
        self._batch, self._first, self._last = batch, first, last
        self._rank, self._world = rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self._first, self._last):
            chips = range(step * self._batch + self._rank, (step + 1) * self._batch, self._world)
            yield [divmod(chip, self._per_epoch) for chip in chips]

    def __len__(self) -> int:
        return self._last - self._first


def training_batches(
    reader: ChipReader,
    plan: SamplePlan,
    *,
    batch: int,
    first: int,
    last: int,
    workers: int,
    least: float = 0.1,
    rank: int = 0,
    world: int = 1,
) -> Iterator[LabelledBatch]:
    """Batches of the steps `first` to `last`.

    Args:
        reader: of the chips.
        plan: which chips.
        batch: chips of a step, over all processes.
        first: step to begin with.
        last: one past the last step.
        workers: processes that decode; 0: this one does.
        least: share of a chip that must be labelled, or another is drawn in its place.
        rank: this process of those that learn together.
        world: how many of them there are.

    Raises:
        CitycoverError: what went wrong with a chip, wherever it was decoded.
        MachineError: a process that decodes was killed.
    """
    steps = Steps(plan.chips_per_epoch, batch, first, last, rank, world)
    for images, labels in decoded(_Chips(reader, plan, least), steps, workers):
        yield LabelledBatch(images, labels.long())


def decoded(drawn: Drawn, steps: Steps, workers: int) -> Iterator[Any]:
    """Chips of each step, collated, from processes that decode.

    Args:
        drawn: what is decoded.
        steps: which.
        workers: processes; 0: this one.

    Raises:
        CitycoverError: what went wrong with a chip, wherever it was decoded.
        MachineError: a process that decodes was killed.
    """
    loader = DataLoader(
        drawn,
        batch_sampler=steps,
        num_workers=workers,
        worker_init_fn=_begin_worker,
        collate_fn=_collate,
    )
    try:
        for together in loader:
            if isinstance(together, CitycoverError):
                raise together
            yield together
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise MachineError(
            f"a process that decodes chips ended ({str(error).splitlines()[0]}), most often because memory "
            "was used up; give --workers 0, or smaller chips or batches"
        ) from None


def _collate(chips: list[tuple[Tensor, ...] | CitycoverError]) -> Any:
    """Stacked tensors, or the first error among the chips."""
    wrong = next((chip for chip in chips if isinstance(chip, CitycoverError)), None)
    return wrong or default_collate(chips)


def validation_batches(reader: ChipReader, plan: SamplePlan, batch: int) -> Iterator[LabelledBatch]:
    """The held-out chips."""
    chips = _Chips(reader, plan, 0.0)
    for first in range(0, len(plan.validation), batch):
        numbers = range(first, min(first + batch, len(plan.validation)))
        images, labels = zip(*(chips.draw(-1, i) for i in numbers), strict=True)
        yield LabelledBatch(torch.stack(images), torch.stack(labels).long())


def _begin_worker(_worker: int) -> None:
    """One thread; a signal to the whole group is for the process that learns, which then ends this one."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
