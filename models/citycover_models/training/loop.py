"""Training, as one visible loop: samples -> augmentation -> loss -> step -> journal -> checkpoint.

    images, labels ──▶ TrainingSet ──▶ SamplePlan ──▶ worker processes ──▶ batches
                                                                         │ augment, on the device
                                                                         ▼
                 model.pt ◀── export ◀── weights ◀── optimiser ◀── method(network)

Everything random in a step is drawn from (seed, step), so a run that was killed goes on to the same weights.
Started by torchrun, processes share the chips of each step, and the first of them writes.
"""

from __future__ import annotations

import json
import logging
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from citycover.classes.table import NO_CLASS
from citycover.errors import StoppedError, TrainingError
from citycover.evaluate.confusion import Confusion, count_pairs
from citycover.files.atomic import write_atomic
from citycover_models.catalogue.preset import AerialPreset
from citycover_models.data.batches import LabelledBatch, training_batches, validation_batches
from citycover_models.data.chips import ChipReader
from citycover_models.data.labels import IGNORE
from citycover_models.data.sampling import SamplePlan
from citycover_models.export.margins import measurable, measure_margins
from citycover_models.export.proof import safe_precision
from citycover_models.export.write import export_torchscript
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.methods.learner import Learner
from citycover_models.methods.method import Moment
from citycover_models.training.checkpoint import Checkpoint, write_checkpoint
from citycover_models.training.folder import CHECKPOINT, RESULT
from citycover_models.training.journal import Journal, draw_predictions
from citycover_models.training.knowledge import Knowledge, measure_knowledge
from citycover_models.training.record import card_of
from citycover_models.training.request import TrainRequest, TrainWatch
from citycover_models.training.setup import (
    begin_with,
    build_network,
    class_weights_of,
    make_optimiser,
    running_mean,
)
from citycover_models.weights.weights import load_weights, write_tensors, write_weights

logger = logging.getLogger(__name__)

_SAVE_EVERY = 60.0
"""Seconds between checkpoints inside an epoch."""

_SHOWN = 4
"""Chips in a figure of predictions."""


class Run:
    """The state of one training, and the loop over it."""

    def __init__(
        self,
        request: TrainRequest,
        preset: AerialPreset,
        plan: SamplePlan,
        statistics: AerialStatistics,
        state: Checkpoint,
        device: torch.device,
        rank: int,
        world: int,
    ) -> None:
        self.request, self.recipe, self.plan, self.preset = request, request.recipe, plan, preset
        self.device, self.rank, self.world, self.state = device, rank, world, state
        torch.manual_seed(request.seed)
        network = build_network(preset, request.recipe, len(request.training_set.legend.ids), statistics)
        if request.weights:
            measured = {k: v.clone() for k, v in network.named_buffers() if "normalise" in k}
            begin_with(network, request.weights)
            network.load_state_dict(measured, strict=False)  # of these images, not of those before
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        weights = class_weights_of(plan, self.recipe)
        self.lesson = Learner(network, self.recipe.method, weights).to(device)
        idle = self.recipe.method.name == "ce"  # leaves alone what only another method uses: coarse heads
        self.learner: nn.Module = (
            DistributedDataParallel(self.lesson, find_unused_parameters=idle) if world > 1 else self.lesson
        )
        self.optimiser = make_optimiser(self.recipe.optimiser, network)
        self.mean = running_mean(network, self.recipe.ema)
        if state.step:
            network.load_state_dict(state.network)
            self.optimiser.load_state_dict(state.optimiser)
            if self.mean is not None and state.mean is not None:
                self.mean.load_state_dict(state.mean)
            for name, weight in network.named_parameters():
                if name in state.gradients:
                    weight.grad = torch.empty_like(weight).copy_(state.gradients[name])
        self.step = state.step
        self.reader = ChipReader(request.training_set.pairs, statistics.mean)
        self.steps_per_epoch = plan.chips_per_epoch // self.recipe.batch
        self.steps = self.recipe.epochs * self.steps_per_epoch
        shape = (1, len(statistics.mean), 1, 1)
        self.band_mean = torch.tensor(statistics.mean, device=device).view(shape)
        self.band_std = torch.tensor(statistics.std, device=device).view(shape)
        self.knowledge: Knowledge | None = None
        """Measured when training is done, in the first process."""
        self.journal: Journal | None = None
        """Of the first process, from the first step on: the folder may hold an earlier training before."""
        self._saved = self._spoke = time.perf_counter()
        self._pixels = 0
        self._losses: list[float] = []

    # --- the loop ----------------------------------------------------------------------------------------

    def learn(self, watch: TrainWatch) -> None:
        """Every step from the checkpoint on."""
        if self.rank == 0:
            self.journal = Journal(self.request.out, self.step)
        if self.state.enough:
            return
        recipe = self.recipe
        batches = training_batches(
            self.reader,
            self.plan,
            batch=recipe.batch,
            first=self.step,
            last=self.steps,
            workers=self.request.workers,
            rank=self.rank,
            world=self.world,
        )
        self.network.train()
        for batch in batches:
            epoch = self.step // self.steps_per_epoch
            torch.manual_seed(_mix(self.request.seed, self.step, self.rank))
            loss = self._forward_backward(batch, Moment(self.step, self.steps, epoch))
            if (self.step + 1) % recipe.accumulate == 0 or self.step + 1 == self.steps:
                self._move(recipe.schedule.rate(recipe.optimiser.lr, self.step, self.steps, epoch))
            self.step += 1
            self._note(batch, loss, watch)
            ended = self.step % self.steps_per_epoch == 0
            if ended:
                self.state.enough = self._end_epoch(epoch)
            stopped = self._anyone(watch.stop.is_set())
            if stopped or ended or time.perf_counter() - self._saved > _SAVE_EVERY:
                self._save()
            if stopped:
                raise StoppedError
            if self.state.enough:
                logger.info("no better criterion for %d epochs: enough", recipe.patience)
                break

    def _forward_backward(self, batch: LabelledBatch, moment: Moment) -> float:
        generator = torch.Generator().manual_seed(_mix(self.request.seed, self.step, self.rank))
        images = batch.images.to(self.device, non_blocking=True)
        varied = self.recipe.augment(
            LabelledBatch(images, batch.labels.to(self.device, non_blocking=True)),
            self.band_mean,
            self.band_std,
            generator,
        )
        with self._precision():
            loss: Tensor = self.learner(varied.images, varied.labels, moment)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._refuse(batch, value)
        (loss / self._gathered).backward()
        return value

    @property
    def _gathered(self) -> int:
        """Steps whose gradients move the weights together with the one in hand; the last may be fewer."""
        first = self.step - self.step % self.recipe.accumulate
        return min(self.recipe.accumulate, self.steps - first)

    def _move(self, rate: float) -> None:
        """One step of the optimiser with the gradients that were gathered."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.mean is not None:
            self.mean.update_parameters(self.network)

    def _end_epoch(self, epoch: int) -> bool:
        """Judge the weights, write journal and figures; True where training has gone on long enough."""
        scores = self._agreed(self._validate(epoch) if self.rank == 0 else {})
        if self.journal is not None:
            self.journal.add({"step": self.step, "epoch": epoch, **scores})
            self.journal.draw_now_and_then()
        if not scores:
            return False
        if scores["validation_miou"] > self.state.best:
            self.state.best, self.state.best_epoch = scores["validation_miou"], epoch
            if self.recipe.patience and self.rank == 0:
                write_weights(self.kept_network, self.request.out / "best.safetensors")
        if not self.recipe.patience or self.state.best_epoch == epoch:
            self.state.kept = scores
        return bool(self.recipe.patience and epoch - self.state.best_epoch >= self.recipe.patience)

    # --- what the loop calls -----------------------------------------------------------------------------

    @property
    def kept_network(self) -> nn.Module:
        """The network whose weights count: the running mean, where there is one."""
        return self.mean.module if self.mean is not None else self.network

    def _anyone(self, flag: bool) -> bool:
        """Whether any process says so: they end after the same step, or one would wait for the others."""
        if self.world == 1:
            return flag
        said = torch.tensor(int(flag), device=self.device)
        torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
        return bool(said)

    def _agreed(self, scores: dict[str, float]) -> dict[str, float]:
        """Scores of the first process, in all: statistics of BatchNorm differ a little between them."""
        if self.world > 1:
            shared = [scores]
            torch.distributed.broadcast_object_list(shared, device=self.device)
            (scores,) = shared
        return scores

    def _precision(self) -> Any:
        fast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        if self.recipe.amp == "auto" and fast:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _validate(self, epoch: int) -> dict[str, float]:
        """Agreement with the coarse labels that were held out; the high-resolution truth is never seen."""
        if not self.plan.validation:
            return {}
        network = self.kept_network.eval()
        classes = len(self.request.training_set.legend.ids)
        total, seen = Confusion(np.zeros((classes, classes), np.int64)), 0
        shown: list[tuple[Any, ...]] = []
        every = -(-len(self.plan.validation) // _SHOWN)
        with torch.inference_mode(), self._precision():
            for batch in validation_batches(self.reader, self.plan, self.recipe.batch):
                images, labels = batch.images, batch.labels
                predicted = network(images.to(self.device)).argmax(1).cpu()
                total += count_pairs(np.where(labels == IGNORE, NO_CLASS, labels), predicted.numpy(), classes)
                chips = zip(images.numpy(), labels.numpy(), predicted.numpy(), strict=True)
                shown += [chip for number, chip in enumerate(chips, seen) if number % every == 0]
                seen += len(images)
        self.network.train()
        columns = [np.stack(column) for column in zip(*shown, strict=True)]
        path = self.request.out / f"predictions-{epoch + 1:04d}.png"
        draw_predictions(path, columns[0], columns[1], columns[2], self.request.training_set.legend)
        if not total.counts.any():
            return {}
        return {"validation_miou": total.miou, "validation_accuracy": total.overall_accuracy}

    def _note(self, batch: LabelledBatch, loss: float, watch: TrainWatch) -> None:
        """Say how it goes, about once a second."""
        self._losses.append(loss)
        self._pixels += batch.labels.numel() * self.world
        now = time.perf_counter()
        seconds = now - self._spoke
        if seconds < 1 and self.step < self.steps:
            return
        row = {
            "step": self.step,
            "loss": float(np.mean(self._losses)),
            "lr": float(self.optimiser.param_groups[0]["lr"]),
            "mpx_per_s": self._pixels / 1e6 / max(seconds, 1e-9),
        }
        if self.journal is not None:
            self.journal.add(row)
        watch.advanced(self.step, self.steps, f"loss {row['loss']:.3f}, {row['mpx_per_s']:.2f} Mpx/s")
        self._losses, self._pixels, self._spoke = [], 0, now

    def _save(self) -> None:
        self._saved = time.perf_counter()
        if self.rank:
            return
        self.state.step = self.step
        self.state.network = self.network.state_dict()
        self.state.optimiser = self.optimiser.state_dict()
        self.state.mean = self.mean.state_dict() if self.mean is not None else None
        gathering = self.step % self.recipe.accumulate and self.step < self.steps
        weights = self.network.named_parameters() if gathering else ()
        self.state.gradients = {name: w.grad for name, w in weights if w.grad is not None}
        write_checkpoint(self.state, self.request.out / CHECKPOINT)

    def _refuse(self, batch: LabelledBatch, value: float) -> None:
        path = self.request.out / "broken-batch.safetensors"
        write_tensors({"images": batch.images, "labels": batch.labels}, path)
        weights = all(bool(p.isfinite().all()) for p in self.network.parameters())
        pixels = bool(batch.images.float().isfinite().all())
        reason = (
            "its images hold numbers that are not finite (say which with --nodata)"
            if not pixels
            else "the batch is sound, so the step before was too long (lower optimiser.lr, or set clip)"
            if weights
            else "weights were lost in an earlier step (lower optimiser.lr, or set clip)"
        )
        raise TrainingError(
            f"the loss of step {self.step} is {value}: {reason}; the batch is kept in {path}; start "
            "again with --overwrite"
        )

    def finish(self) -> Path:
        """Write weights and model file."""
        out = self.request.out
        if self.recipe.patience and (out / "best.safetensors").is_file():
            load_weights(self.kept_network, out / "best.safetensors")
        self.knowledge = self._measure_knowledge()
        network = self.kept_network.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        write_weights(network, out / "weights.safetensors")
        card = card_of(self.request, self.preset, network, self.step, self.knowledge)
        if self.preset.fold is not None:
            network = self.preset.fold(network)
        if self.request.measure:
            card = card.model_copy(update={"precision": safe_precision(network, card)})
            with torch.inference_mode():
                margins = measure_margins(network, card) if measurable(card) else None
            card = margins.on(card) if margins else card
        report = export_torchscript(network, card, out / "model.pt")
        if self.journal is not None:
            self.journal.close()
        result = {
            "finished": True,
            "steps": self.step,
            "sha256": report.sha256,
            "kept": self.state.kept,
            "labels": str(self.knowledge),
        }
        write_atomic(out / RESULT, json.dumps(result, indent=1))
        (out / CHECKPOINT).unlink(missing_ok=True)
        return report.path

    def _measure_knowledge(self) -> Knowledge:
        """What the network must know of itself before labels can be weighed against it."""
        network = self.kept_network.eval()

        def scores(images: Tensor) -> Tensor:
            with self._precision():
                found: Tensor = network(images.to(self.device))
            return found

        return measure_knowledge(scores, self.reader, self.plan, self.request.training_set.pairs)


def _mix(*numbers: int) -> int:
    """One seed out of several."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
