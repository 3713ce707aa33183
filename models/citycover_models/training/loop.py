"""Training, as one visible loop: samples -> augmentation -> loss -> step -> journal -> checkpoint.

    images, labels ──▶ TrainingSet ──▶ SamplePlan ──▶ worker processes ──▶ batches
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
from citycover_models.data.batches import LabelledBatch, training_batches
from citycover_models.data.chips import ChipReader
from citycover_models.data.sampling import SamplePlan
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.methods.method import Moment
from citycover_models.training.checkpoint import Checkpoint, write_checkpoint
from citycover_models.training.folder import BEST, CHECKPOINT
from citycover_models.training.journal import Journal, Pace
from citycover_models.training.processes import Processes
from citycover_models.training.request import TrainRequest, TrainWatch
from citycover_models.training.trainee import Trainee
from citycover_models.training.validation import validate
from citycover_models.weights.weights import write_tensors, write_weights

logger = logging.getLogger(__name__)

_SAVE_EVERY = 60.0
"""Seconds between checkpoints inside an epoch."""


class Run:
    """The loop over one training; `state` is where it is."""

    def __init__(
        self,
        request: TrainRequest,
        plan: SamplePlan,
        statistics: AerialStatistics,
        trainee: Trainee,
        state: Checkpoint,
        processes: Processes,
    ) -> None:
        self.request, self.recipe, self.plan = request, request.recipe, plan
        self.trainee, self.state, self.processes = trainee, state, processes
        self.reader = ChipReader(request.training_set.pairs, statistics.mean)
        self.steps_per_epoch = plan.chips_per_epoch // self.recipe.batch
        self.steps = self.recipe.epochs * self.steps_per_epoch
        shape = (1, len(statistics.mean), 1, 1)
        self.band_mean = torch.tensor(statistics.mean, device=processes.device).view(shape)
        self.band_std = torch.tensor(statistics.std, device=processes.device).view(shape)
        self.pace = Pace()
        self.journal = Journal(request.out, state.step) if processes.rank == 0 else None
        self._saved = time.perf_counter()

    def learn(self, watch: TrainWatch) -> None:
        """Every step from the checkpoint on.

        Raises:
            StoppedError: `watch.stop` was set; a checkpoint was written.
            TrainingError: the loss is no number any more.
        """
        state = self.state
        self.trainee.network.train()
        for batch in () if state.enough else self._batches():
            moment = Moment(state.step, self.steps, state.step // self.steps_per_epoch)
            loss = self._learn_from(batch, moment)
            state.step += 1
            ended = state.step % self.steps_per_epoch == 0
            self._note(batch, loss, watch, ended=ended)
            if ended:
                state.enough = self._end_epoch(moment.epoch)
            stopped = self.processes.anyone(watch.stop.is_set())
            if stopped or ended or time.perf_counter() - self._saved > _SAVE_EVERY:
                self._save()
            if stopped:
                raise StoppedError
            if state.enough:
                logger.info("no better criterion for %d epochs: enough", self.recipe.patience)
                break
        if self.journal is not None:
            self.journal.close()

    def _batches(self) -> Iterator[LabelledBatch]:
        return training_batches(
            self.reader,
            self.plan,
            batch=self.recipe.batch,
            first=self.state.step,
            last=self.steps,
            workers=self.request.workers,
            rank=self.processes.rank,
            world=self.processes.world,
        )

    def _learn_from(self, batch: LabelledBatch, moment: Moment) -> float:
        """Loss of a batch; its gradient is gathered, and moves the weights where enough are together."""
        recipe, step = self.recipe, moment.step
        seed = _mix(self.request.seed, step, self.processes.rank)
        torch.manual_seed(seed)
        varied = recipe.augment(
            batch.to(self.processes.device),
            self.band_mean,
            self.band_std,
            torch.Generator().manual_seed(seed),
        )
        loss = self.trainee.loss(varied, moment)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._refuse(batch, value)
        first = step - step % recipe.accumulate
        (loss / min(recipe.accumulate, self.steps - first)).backward()  # the last may be fewer
        if (step + 1) % recipe.accumulate == 0 or step + 1 == self.steps:
            self.trainee.move(recipe.schedule.rate(recipe.optimiser.lr, step, self.steps, moment.epoch))
        return value

    def _end_epoch(self, epoch: int) -> bool:
        """Judge the weights, write journal and figures; True where training has gone on long enough."""
        state, patience = self.state, self.recipe.patience
        scores = self.processes.agreed(self._validate(epoch) if self.processes.rank == 0 else {})
        if self.journal is not None:
            self.journal.add({"step": state.step, "epoch": epoch, **scores})
            self.journal.draw_now_and_then()
        if not scores:
            return False
        if scores["validation_miou"] > state.best:
            state.best, state.best_epoch = scores["validation_miou"], epoch
            if patience and self.processes.rank == 0:
                write_weights(self.trainee.kept, self.request.out / BEST)
        if not patience or state.best_epoch == epoch:
            state.kept = scores
        return bool(patience and epoch - state.best_epoch >= patience)

    def _validate(self, epoch: int) -> dict[str, float]:
        figure = self.request.out / f"predictions-{epoch + 1:04d}.png"
        legend = self.request.training_set.legend
        return validate(self.trainee, self.reader, self.plan, legend, self.recipe.batch, figure)

    def _note(self, batch: LabelledBatch, loss: float, watch: TrainWatch, *, ended: bool) -> None:
        """Say how it goes: to the journal also at the end of an epoch, to the watch once a second."""
        self.pace.add(loss, batch.labels.numel() * self.processes.world)
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
            write_checkpoint(self.state, self.request.out / CHECKPOINT)

    def _refuse(self, batch: LabelledBatch, value: float) -> NoReturn:
        path = self.request.out / "broken-batch.safetensors"
        write_tensors({"images": batch.images, "labels": batch.labels}, path)
        reason = (
            "its images hold numbers that are not finite (say which with --nodata)"
            if not bool(batch.images.float().isfinite().all())
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
