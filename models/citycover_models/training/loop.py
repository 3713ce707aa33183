"""Training, as one visible loop: samples -> augmentation -> loss -> step -> journal -> checkpoint.

    images, labels ──▶ TrainingSet ──▶ Material ────▶ worker processes ──▶ batches
                                                                             │ augment, on the device
                                                                             ▼
                     model.pt ◀── export ◀── weights ◀── optimiser ◀── method(network)

Everything random in a step is drawn from (seed, step), so a run that was killed goes on to the same weights.
Started by torchrun, processes share the chips of each step, and the first of them writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import torch

from citycover.errors import StoppedError, TrainingError
from citycover_models.data.batches import Batch
from citycover_models.methods.method import Moment
from citycover_models.training.checkpoint import Checkpoint, write_checkpoint
from citycover_models.training.folder import BEST, CHECKPOINT
from citycover_models.training.journal import Journal, Pace
from citycover_models.training.material import Material, Staged
from citycover_models.training.processes import Processes
from citycover_models.training.request import TrainRequest, TrainWatch
from citycover_models.training.trainee import Trainee
from citycover_models.weights.weights import write_tensors, write_weights

logger = logging.getLogger(__name__)

_SAVE_EVERY = 60.0
"""Seconds between checkpoints inside an epoch."""


class Run:
    """The loop over one training; `state` is where it is."""

    def __init__(
        self,
        request: TrainRequest,
        material: Material,
        trainee: Trainee,
        state: Checkpoint,
        processes: Processes,
    ) -> None:
        self.request, self.recipe, self.material = request, request.recipe, material
        self.trainee, self.state, self.processes = trainee, state, processes
        self.steps_per_epoch = material.steps_per_epoch
        self.steps = self.recipe.epochs * self.steps_per_epoch
        self.pace = Pace()
        told = (material.criterion, material.title)
        self.journal = Journal(request.out, state.step, told) if processes.rank == 0 else None
        self._saved = time.perf_counter()

    def learn(self, watch: TrainWatch) -> None:
        """Every step from the checkpoint on.

        Raises:
            StoppedError: `watch.stop` was set; there is a checkpoint if a step was done.
            TrainingError: the loss is no number any more.
        """
        state, processes = self.state, self.processes
        self.trainee.network.train()
        if processes.anyone(watch.stop.is_set()):
            raise StoppedError
        for batch in () if state.enough else self._batches():
            moment = Moment(state.step, self.steps, state.step // self.steps_per_epoch)
            loss = self._learn_from(batch, moment)
            state.step += 1
            ended = state.step % self.steps_per_epoch == 0
            self._note(batch, loss, watch, ended=ended)
            if ended:
                state.enough = self._end_epoch(moment.epoch)
            stopped = processes.anyone(watch.stop.is_set())
            if stopped or ended or time.perf_counter() - self._saved > _SAVE_EVERY:
                self._save()
            if stopped:
                processes.wait()  # torchrun ends all as soon as one has ended: not before this is kept
                raise StoppedError
            if state.enough:
                logger.info("no better criterion for %d epochs: enough", self.recipe.patience)
                break
        if self.journal is not None:
            self.journal.close()

    def _batches(self) -> Iterator[Batch]:
        """Every batch from the checkpoint on, stage by stage."""
        processes = self.processes
        for stage in self.recipe.method.stages(self.steps):
            if self.state.step == stage.first and isinstance(self.material, Staged):
                if stage.first:
                    self._save()  # what comes may take hours
                self.material.enter(stage, self.trainee, processes)
            if self.state.step < stage.last:
                yield from self.material.batches(self.state.step, stage.last, processes.rank, processes.world)

    def _learn_from(self, batch: Batch, moment: Moment) -> float:
        """Loss of a batch; its gradient is gathered, and moves the weights where enough are together."""
        recipe, step = self.recipe, moment.step
        seed = _mix(self.request.seed, step, self.processes.rank)
        torch.manual_seed(seed)
        here = batch.to(self.processes.device)
        varied = self.material.vary(here, torch.Generator().manual_seed(seed))
        loss = self.trainee.loss(varied, moment)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._refuse(batch, value)
        first = step - step % recipe.accumulate
        (loss / min(recipe.accumulate, self.steps - first)).backward()  # the last may be fewer
        if (step + 1) % recipe.accumulate == 0 or step + 1 == self.steps:
            lr, falls = recipe.optimiser.lr, self.state.falls
            self.trainee.move(recipe.schedule.rate(lr, step, self.steps, moment.epoch, falls))
        return value

    def _end_epoch(self, epoch: int) -> bool:
        """Judge the weights, write journal and figures; True where training has gone on long enough."""
        state, patience = self.state, self.recipe.patience
        figure = self.request.out / f"predictions-{epoch + 1:04d}.png"
        # Of the first alone: statistics of BatchNorm differ a little between processes.
        scores = self.processes.first(lambda: self.material.judge(self.trainee, figure))
        self.trainee.network.train()
        if self.journal is not None:
            self.journal.add({"step": state.step, "epoch": epoch, **scores})
            self.journal.draw_now_and_then()
        if not scores:
            return False
        if state.step <= self.recipe.method.counts_from(self.steps):
            state.kept = scores  # the last weights are kept, unless better ones follow
            return False
        if scores[self.material.criterion] > state.best:
            state.best, state.best_epoch = scores[self.material.criterion], epoch
            if patience and self.processes.rank == 0:
                write_weights(self.trainee.kept, self.request.out / BEST)
        if not patience or state.best_epoch == epoch:
            state.kept = scores
        if epoch - max(state.best_epoch, state.fell_epoch) >= self.recipe.schedule.every:
            state.falls, state.fell_epoch = state.falls + 1, epoch
        return bool(patience and epoch - state.best_epoch >= patience)

    def _note(self, batch: Batch, loss: float, watch: TrainWatch, *, ended: bool) -> None:
        """Say how it goes: to the journal also at the end of an epoch, to the watch once a second."""
        self.pace.add(loss, batch.pixels * self.processes.world)
        spoken = self.pace.is_second or self.state.step == self.steps
        if not (spoken or ended):
            return
        row = {"step": self.state.step, "lr": self.trainee.rate, **self.pace.turn()}
        if self.journal is not None:
            self.journal.add(row)
        if spoken:
            self.pace.spoke()
            watch.advanced(
                self.state.step, self.steps, f"loss {row['loss']:.3f}, {row['mpx_per_s']:.2f} Mpx/s"
            )

    def _save(self) -> None:
        self._saved = time.perf_counter()
        if self.processes.rank == 0:
            step = self.state.step
            self.trainee.store(self.state, gathering=step % self.recipe.accumulate > 0 and step < self.steps)
            if self.journal is not None:
                self.journal.keep()
            write_checkpoint(self.state, self.request.out / CHECKPOINT)

    def _refuse(self, batch: Batch, value: float) -> NoReturn:
        path = self.request.out / "broken-batch.safetensors"
        write_tensors(batch.tensors, path)
        reason = (
            "its images hold numbers that are not finite (say which with --nodata)"
            if not all(bool(tensor.float().isfinite().all()) for tensor in batch.tensors.values())
            else "the batch is sound, so the step before was too long (lower optimiser.lr, or set clip)"
            if self.trainee.sound
            else "weights were lost in an earlier step (lower optimiser.lr, or set clip)"
        )
        raise TrainingError(
            f"the loss of step {self.state.step} is {value}: {reason}; the batch is kept in {path}; start "
            "again with --overwrite"
        )


def _mix(*numbers: int) -> int:
    """One seed out of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
