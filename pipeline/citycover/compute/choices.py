"""What a run does, settled in one place: window, batch, form, precision, threads, blocks.

`settle` decides for `map`, for its workers, for `plan` and for arrays; what it has to try out is measured in
`compute/trials.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from citycover.compute.belief import believe
from citycover.compute.bound import check_memory, keep_memory
from citycover.compute.forms import SAMPLES, choose_lane, lanes_asked
from citycover.compute.trials import batch_shapes, sample_windows
from citycover.compute.window import fastest_window, larger_windows, largest_window
from citycover.engine.input import SweepInput
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.noise import Belief
from citycover.job.job import Job, area_mask
from citycover.machine.cores import threads_here
from citycover.machine.device import kind_of
from citycover.machine.memory import release_memory
from citycover.model.bench import Lane
from citycover.model.form import runtime_of
from citycover.model.gate import fast_precisions, passes_gate
from citycover.model.precision import Precision
from citycover.model.predictor import Predictor
from citycover.model.probabilities import to_probabilities
from citycover.plan.plan import CHUNK, Plan
from citycover.read.open import open_readers
from citycover.store.store import WorkingStore
from citycover.store.work import WorkFolder

logger = logging.getLogger(__name__)

GATE_PIXELS = 4_000_000
"""Input pixels on which reduced precision is compared with fp32."""

_CPU_BATCH_PIXELS = 1_500_000
"""About where the activations of one batch stop fitting into the caches of a processor."""

_GPU_BATCH_PIXELS = 16_000_000

_GPU_WINDOW = 2048
"""Longest window that a GPU is given unasked: longer ones spare it little, and strips are as high."""


def default_batch(plan: Plan, device: torch.device) -> int:
    """Windows that go through the network together.

    A network with finer output works on as many pixels. Batches are of one row, and their empty slots are
    computed too: a row is shared out evenly, among as few batches as it takes.
    """
    pixels = _GPU_BATCH_PIXELS if device.type == "cuda" else _CPU_BATCH_PIXELS
    worked_on = plan.window_pixels * math.ceil(plan.scale) ** 2
    most = max(1, min(64, plan.x.count, pixels // worked_on))
    return math.ceil(plan.x.count / math.ceil(plan.x.count / most))


def widened(plan: Plan, device: torch.device) -> Plan:
    """The plan with the blocks that its device does best with: on a GPU as wide as the map.

    Batches end where a block does, and windows that two blocks share are run for both; a GPU takes so many
    windows at once that most of its slots would be empty in narrow blocks.
    """
    if device.type != "cuda":
        return plan
    return replace(plan, block_shape=(plan.block_shape[0], -(-plan.shape[1] // CHUNK) * CHUNK))


def choose_precision(
    wanted: Precision | Literal["auto"], predictor: Predictor, samples: Callable[[], list[list[Tensor]]]
) -> Precision:
    """Precision of a run: what was asked for, or for `auto` the fastest that flips near-ties only.

    Args:
        wanted: auto, fp32, bf16 or fp16.
        predictor: runs the samples, in fp32.
        samples: reads windows; called only if there is something to compare.
    """
    if wanted != "auto":
        return wanted
    candidates = fast_precisions(predictor.device)
    if not candidates or predictor.card.precision == "fp32":
        return "fp32"
    windows = [[tensor.to(predictor.device) for tensor in window] for window in samples()]
    exact = [to_probabilities(predictor(window), predictor.card) for window in windows]
    for fast in candidates:
        reduced = (to_probabilities(predictor.at(fast)(window), predictor.card) for window in windows)
        if all(passes_gate(one, other) for one, other in zip(exact, reduced, strict=True)):
            return fast
    return "fp32"


@dataclass(frozen=True, slots=True)
class Settled:
    """A run down to its last choice."""

    plan: Plan
    """Windows, batch, form, precision and blocks."""
    kept: dict[str, Any]
    """The choices that a resumed run must keep, as its store holds them."""
    device: str
    threads: int
    """That a process of the run computes with."""
    belief: Belief | None = None
    """How far the labels of the place are believed; None: there are none."""
    evidence: LabelEvidence | None = None
    """Those labels, believed so far."""
    runtime: str = ""
    """What runs the network, with its version, where it is not torch."""


def kept_choices(job: Job, folder: WorkFolder) -> dict[str, Any]:
    """What the unfinished run in the folder had settled, if there is one.

    Raises:
        ProductError: it is of another model, scene or area.
    """
    return dict(WorkingStore.read_extra(folder.store, job.given)) if folder.resumable else {}


def in_one_process(job: Job) -> Job:
    """The job as one of its processes sees it: workers of this machine share its cores."""
    asked = job.engine
    if asked.threads is not None or not asked.workers:
        return job
    threads = max(1, threads_here() // asked.workers)
    return replace(job, engine=replace(asked, threads=threads))


def settle(job: Job, predictor: Predictor, kept: Mapping[str, Any] | None = None) -> Settled:
    """All that decides how a run goes: as asked for, as an unfinished run had it, or chosen here.

    Threads come first, because trials are run with them; then the window, which decides the batch; then
    form and precision; then what memory leaves of batch and blocks.

    Args:
        job: as the process sees it that computes.
        predictor: of the job's network, on the device that computes, in fp32.
        kept: what an unfinished run had settled.

    Raises:
        MachineError: the memory asked for is too little, or form and precision cannot run here.
    """
    asked, kept = job.engine, kept or {}
    if asked.threads:
        torch.set_num_threads(asked.threads)
    window = asked.window or kept.get("window") or _choose_window(job, predictor, kept)
    plan = _with_batch(job, predictor, kept, window)
    if asked.batch and asked.batch > plan.batch == plan.x.count:
        logger.info("%d windows go through the network together: a row has no more", plan.batch)
    lane = _settle_lane(job, predictor, kept, plan)
    chosen = predictor.at(lane.precision, lane.form)  # refused now, before anything of the run is kept
    plan = replace(plan, form=lane.form, precision=lane.precision)
    bound = asked.memory
    if "block" in kept:
        plan = replace(plan, block_shape=tuple(kept["block"]))
        bound = kept.get("memory")
        if asked.memory is not None and not (bound and bound <= asked.memory):
            check_memory(plan, job.scene, chosen, asked.memory, job.layers)
    elif asked.memory is not None:
        plan = keep_memory(plan, job.scene, chosen, asked.memory, job.layers)
    elif asked.block is None:
        plan = widened(plan, predictor.device)
    release_memory()  # what the trials took, in windows larger than the one that was chosen
    belief = _settle_belief(job, chosen, kept, plan)
    choices = {
        "window": window,
        "batch": plan.batch,
        "batch_asked": asked.batch,
        "precision": plan.precision,
        "form": plan.form,
        "block": list(plan.block_shape),
        "memory": bound,
        "labels": belief.facts() if belief else None,
    }
    evidence = job.labels.believed(belief) if job.labels and belief else None
    runtime = runtime_of(plan.form) or ""
    return Settled(
        plan, choices, kind_of(predictor.device), torch.get_num_threads(), belief, evidence, runtime
    )


def _settle_belief(job: Job, predictor: Predictor, kept: Mapping[str, Any], plan: Plan) -> Belief | None:
    """As kept; else as asked for, as the model knows, or as the scene tells."""
    if job.labels is None:
        return None
    if kept.get("labels"):
        return Belief.of(kept["labels"])
    readers = open_readers(job.scene, job.engine.threads)
    given = SweepInput(plan, predictor, readers, area=area_mask(job, plan))
    return believe(job.labels, given)


def _choose_window(job: Job, predictor: Predictor, kept: Mapping[str, Any]) -> int:
    """The card's window or a larger one; where memory is short, and of tiles, that they match, the card's."""
    card = job.model.card
    larger = larger_windows(card) if job.engine.memory is None and job.tile is None else ()
    gpu = predictor.device.type == "cuda"
    if larger and gpu:
        most = min(card.window.maximum, _GPU_WINDOW) // card.window.multiple * card.window.multiple
        larger = tuple(sorted({*larger, max(most, card.window.size)}))
    plans = {size: _with_batch(job, predictor, kept, size) for size in (card.window.size, *larger)}
    return largest_window(plans, predictor) if gpu else fastest_window(plans, predictor)


def _with_batch(job: Job, predictor: Predictor, kept: Mapping[str, Any], window: int) -> Plan:
    """The plan in windows of a length, in fp32, with the batch that goes with it."""
    asked = job.engine.batch
    plan = job.plan_in(window, asked or 1, "fp32")
    if "batch" in kept and asked in (None, kept.get("batch_asked")):
        return replace(plan, batch=kept["batch"])
    batch = plan.batch if asked else default_batch(plan, predictor.device)
    if job.tile is not None:  # a window keeps its slot in the batch wherever the whole is cut: see `RowMaker`
        cells = job.tile.size // plan.x.step
        batch = max(n for n in range(1, batch + 1) if cells % n == 0)
    return replace(plan, batch=batch)


def _settle_lane(job: Job, predictor: Predictor, kept: Mapping[str, Any], plan: Plan) -> Lane:
    """As asked for; else as kept; else what machine and scene bear; of tiles, to match, fp32 by torch.

    Raises:
        MachineError: the form cannot run here.
    """
    form, precision = job.engine.form, job.engine.precision
    if "precision" in kept:
        form = kept.get("form", "torchscript") if form == "auto" else form
        precision = kept["precision"] if precision == "auto" else precision
    elif job.tile is not None:
        form = "torchscript" if form == "auto" else form
        precision = "fp32" if precision == "auto" else precision
    lanes = lanes_asked(form, precision, predictor)
    readers, card = open_readers(job.scene, job.engine.threads), job.model.card
    gpu = predictor.device.type == "cuda"

    def samples(pixels: int) -> list[list[Tensor]]:
        return sample_windows(plan, card, readers, pixels)

    def by_gate() -> Lane:
        reduced = choose_precision(precision, predictor, lambda: samples(GATE_PIXELS))
        return next((lane for lane in lanes if lane.precision == reduced), lanes[0])

    return choose_lane(
        lanes,
        predictor,
        plan,
        job.model.sha256,
        lambda: samples(SAMPLES * plan.window_pixels * (plan.batch if gpu else 1)),
        by_gate if gpu else None,
        batch_shapes(plan, card, job.scene),
    )
