"""What a run does, settled in one place: window, batch, form, precision, threads, blocks.

`settle` decides for `map`, for its workers, for `plan` and for arrays; what it has to try out is measured in
`compute/trials.py`.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from citycover.compute.belief import believe
from citycover.compute.forms import SAMPLES, choose_lane, lanes_asked
from citycover.compute.trials import (
    MOST_REPEATS,
    PROBE_SHARE,
    Speed,
    batch_shapes,
    measure_speed,
    sample_windows,
)
from citycover.engine.input import SweepInput
from citycover.errors import MachineError, is_out_of_memory
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.noise import Belief
from citycover.job.job import Job, area_mask
from citycover.machine.cores import threads_here
from citycover.machine.device import kind_of
from citycover.machine.memory import peak_rss, process_memory, release_memory
from citycover.model.bench import Lane
from citycover.model.card import ModelCard
from citycover.model.form import runtime_of
from citycover.model.gate import fast_precisions, passes_gate
from citycover.model.precision import Precision
from citycover.model.predictor import Predictor, to_probabilities
from citycover.plan.cost import BESIDE, memory_bound
from citycover.plan.layers import USUAL, Layer
from citycover.plan.plan import CHUNK, Plan
from citycover.read.open import open_readers
from citycover.scene.scene import Scene
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

_GIB = 2**30

_WORTH = 0.95
"""A larger window takes more memory: it must take less than this part of the time."""

_GROWTH = (3, 4)
"""Windows that are tried beside the card's own, in halves of it."""


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


def keep_memory(
    plan: Plan, scene: Scene, predictor: Predictor, bound: float, layers: Sequence[Layer] = USUAL
) -> Plan:
    """The plan with its batch and then its blocks made smaller, until a process holds at most `bound` GiB.

    A window is tried, and a batch taken to need as many times what that one needed.

    Raises:
        MachineError: even the narrowest block needs more.
    """
    needed_by = _memory_needed(plan, scene, predictor, layers)
    shrinks = predictor.device.type == "cpu"  # elsewhere a batch lies in the memory of the device
    while (needed := needed_by(plan)) > bound * _GIB:
        height, width = plan.block_shape
        if shrinks and plan.batch > 1:
            plan = replace(plan, batch=plan.batch // 2)
        elif width > CHUNK:
            plan = replace(plan, block_shape=(height, max(CHUNK, width // 2 // CHUNK * CHUNK)))
        else:
            raise MachineError(
                f"--memory {bound:g} is too little: program, network and the narrowest block take "
                f"{needed / _GIB:.2f} GiB in windows of {plan.x.window} px; give more, or a smaller --window"
            )
    return plan


def check_memory(
    plan: Plan, scene: Scene, predictor: Predictor, bound: float, layers: Sequence[Layer] = USUAL
) -> None:
    """Refuse to go on with a run whose batch and blocks, which decide pixels, need more than `bound` GiB.

    Raises:
        MachineError: they do.
    """
    needed = _memory_needed(plan, scene, predictor, layers)(plan)
    if needed > bound * _GIB:
        height, width = plan.block_shape
        raise MachineError(
            f"--memory {bound:g} is too little to go on with the unfinished run: its batches of {plan.batch} "
            f"and blocks of {height} x {width} px take {needed / _GIB:.2f} GiB; give as much, or --restart "
            "to begin with smaller ones"
        )


def _memory_needed(
    plan: Plan, scene: Scene, predictor: Predictor, layers: Sequence[Layer]
) -> Callable[[Plan], int]:
    """Bytes that a process of a run holds, by the batch and the blocks of its plan; one window is tried."""
    release_memory()
    held = process_memory("VmRSS") or peak_rss()
    measure_speed(replace(plan, batch=1), predictor, repeats=1)
    window, channels = peak_rss() - held, len(predictor.card.channels)
    on_host = predictor.device.type == "cpu"

    def needed(plan: Plan) -> int:
        batches = plan.batch if on_host else 1
        return held + BESIDE + batches * window + memory_bound(plan, scene, channels, layers).total

    return needed


def larger_windows(card: ModelCard) -> tuple[int, ...]:
    """Longer windows than the card's own that its rule allows: less overlap, if the device bears them.

    Shorter ones are no candidates: trim and feather were measured at the card's size, and shorter windows
    have more seams.

    >>> from citycover.model.builtin import read_builtins
    >>> larger_windows(read_builtins()[0].card)
    (1536, 2048)
    """
    rule = card.window
    if rule.fixed:
        return ()
    sizes = (-(-rule.size * k // (2 * rule.multiple)) * rule.multiple for k in _GROWTH)
    return tuple(size for size in sizes if size <= rule.maximum)


def largest_window(plans: Mapping[int, Plan], predictor: Predictor) -> int:
    """The window in which the fewest pixels are pushed: to a GPU a pixel is as long in any of them.

    Args:
        plans: the same scene in windows of rising size.
        predictor: tries whether one of them fits into the memory of the device.
    """
    chosen, *larger = plans
    pushed = {size: plan.windows * plan.window_pixels for size, plan in plans.items()}
    for size in larger:
        if pushed[size] < _WORTH * pushed[chosen] and _tried(replace(plans[size], batch=1), predictor, 1):
            chosen = size
    return chosen


def _tried(plan: Plan, predictor: Predictor, repeats: int) -> Speed | None:
    """How fast the network is in windows of a plan; None where they do not fit into memory."""
    try:
        return measure_speed(plan, predictor, repeats)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def fastest_window(plans: Mapping[int, Plan], predictor: Predictor) -> int:
    """The window in which a run takes least time: redundancy x time per pixel; of near equals the smaller.

    Args:
        plans: the same scene in windows of rising size, batch settled. Sizes after the first are tried only
            as long as all trials together push at most `PROBE_SHARE` of the run through the network; each is
            tried more than once where that share allows it.
        predictor: runs each plan's windows on random pixels.
    """
    first = next(iter(plans))
    budget = PROBE_SHARE * plans[first].windows * plans[first].window_pixels
    trials = list(itertools.accumulate(plan.batch * plan.window_pixels for plan in plans.values()))
    tried = [size for size, pixels in zip(plans, trials, strict=True) if 2 * pixels <= budget]
    if len(tried) < 2:
        return first
    repeats = min(MOST_REPEATS, int(budget / trials[len(tried) - 1]) - 1)
    seconds: dict[int, float] = {}
    for size in tried:
        if (speed := _tried(plans[size], predictor, repeats)) is None:
            break
        seconds[size] = speed.seconds(plans[size])
    logger.info("seconds by window: %s", {size: round(s, 1) for size, s in seconds.items()})
    best = first
    for size, time_taken in seconds.items():
        if time_taken < _WORTH * seconds[best]:
            best = size
    return best


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
