"""Short probes before a run: a sample of real windows, precision that may be trusted, speed and memory."""

from __future__ import annotations

import itertools
import logging
import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from citycover.allocator import release_memory
from citycover.card import ModelCard
from citycover.errors import MachineError
from citycover.io.reader import Reader
from citycover.planning import CHUNK, Plan, memory_bound
from citycover.predictor import ModelPredictor, Precision, fast_precision, passes_gate, to_probabilities
from citycover.scene import Scene
from citycover.strips import StripSource
from citycover.sweep import coarse_axis

logger = logging.getLogger(__name__)

GATE_PIXELS = 4_000_000
"""Input pixels on which reduced precision is compared with fp32."""
_CPU_BATCH_PIXELS = 1_500_000
"""About where the activations of one batch stop fitting into the caches of a processor."""
_GPU_BATCH_PIXELS = 16_000_000
_GIB = 2**30
PROBE_SHARE = 0.02
"""Most of a run that choosing its window may cost."""
_MOST_REPEATS = 3
_WORTH = 0.95
"""A larger window takes more memory: it must take less than this part of the time."""
_GROWTH = (3, 4)
"""Windows that are tried beside the card's own, in halves of it."""


def peak_rss() -> int:
    """Bytes of memory that this process held at most so far."""
    # Linux hands ru_maxrss on to children: a small process would answer for the large one that started it.
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int:
    """Bytes that Linux counts under a name; 0 where it does not."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)


def default_batch(plan: Plan, device: torch.device) -> int:
    """Windows that go through the network together.

    A network with finer output works on as many pixels. Batches are of one row, and their empty slots are
    computed too: more windows than a row has would be waste.
    """
    pixels = _GPU_BATCH_PIXELS if device.type == "cuda" else _CPU_BATCH_PIXELS
    worked_on = plan.window_pixels * math.ceil(plan.scale) ** 2
    return max(1, min(64, plan.x.count, pixels // worked_on))


def sample_windows(
    plan: Plan, card: ModelCard, open_readers: Callable[[], Sequence[Reader]], pixels: int
) -> list[list[Tensor]]:
    """Real windows from all over the scene, as a predictor takes them, one at a time.

    Args:
        plan: which windows there are.
        card: band groups.
        open_readers: one reader a band group.
        pixels: input pixels wanted at least, as far as the scene has so many.
    """
    wanted = max(1, -(-pixels // plan.window_pixels))
    rows = sorted({round(k * (plan.y.count - 1) / 4) for k in (2, 0, 4, 1, 3)})
    per_row = -(-wanted // len(rows))
    spread = max(1, plan.x.count // per_row)
    found: list[list[Tensor]] = []
    readers = open_readers()
    try:
        for row in rows:
            for column in range(spread // 2, plan.x.count, spread):
                window = _read_window(plan, card, readers, row, column)
                if window is not None and len(found) < wanted:
                    found.append(window)
    finally:
        for reader in readers:
            reader.close()
    return found


def _read_window(
    plan: Plan, card: ModelCard, readers: Sequence[Reader], row: int, column: int
) -> list[Tensor] | None:
    """One (1, band, y, x) tensor a band group; None where no pixel is valid."""
    tensors, any_valid = [], False
    for group, reader in zip(card.groups, readers, strict=True):
        y, x = coarse_axis(plan.y, group.ratio), coarse_axis(plan.x, group.ratio)
        origin = (plan.origin[0] // group.ratio, plan.origin[1] // group.ratio)
        source = StripSource(reader, y, x, range(column, column + 1), origin, group.fills)
        strip = next(source.strips(row))
        any_valid |= bool(strip.valid.any())
        tensor = torch.from_numpy(strip.values.copy()).permute(2, 0, 1)[None]
        tensors.append(tensor if tensor.dtype == torch.uint8 else tensor.to(torch.float32))
    return tensors if any_valid else None


def choose_precision(
    wanted: str, predictor: ModelPredictor, samples: Callable[[], list[list[Tensor]]]
) -> Precision:
    """Precision of a run: what was asked for, or for `auto` the fastest that flips near-ties only.

    Args:
        wanted: auto, fp32, bf16 or fp16.
        predictor: runs the samples; its precision is fp32 again afterwards.
        samples: reads windows; called only if there is something to compare.
    """
    if wanted in ("fp32", "bf16", "fp16"):
        return wanted  # type: ignore[return-value]  # narrowed by the line above
    fast = fast_precision(predictor.device)
    if fast is None or predictor.card.precision == "fp32":
        return "fp32"
    for window in samples():
        moved = [tensor.to(predictor.device) for tensor in window]
        exact = to_probabilities(predictor(moved), predictor.card)
        predictor.precision = fast
        try:
            reduced = to_probabilities(predictor(moved), predictor.card)
        finally:
            predictor.precision = "fp32"
        if not passes_gate(exact, reduced):
            return "fp32"
    return fast


def keep_memory(plan: Plan, scene: Scene, predictor: ModelPredictor, bound: float) -> Plan:
    """The plan with its batch and then its blocks made smaller, until a process holds at most `bound` GiB.

    A window is tried, and a batch taken to need as many times what that one needed.

    Raises:
        MachineError: even the narrowest block needs more.
    """
    release_memory()
    held = _status("VmRSS") or peak_rss()
    measure_speed(replace(plan, batch=1), predictor, repeats=1)
    window = peak_rss() - held
    channels = len(predictor.card.channels)
    shrinks = predictor.device.type == "cpu"  # elsewhere a batch lies in the memory of the device
    while True:
        batches = plan.batch if shrinks else 1
        needed = held + batches * window + memory_bound(plan, scene, channels).total
        if needed <= bound * _GIB:
            return plan
        height, width = plan.block_shape
        if batches > 1:
            plan = replace(plan, batch=plan.batch // 2)
        elif width > CHUNK:
            plan = replace(plan, block_shape=(height, max(CHUNK, width // 2 // CHUNK * CHUNK)))
        else:
            raise MachineError(
                f"--memory {bound:g} is too little: program, network and the narrowest block take "
                f"{needed / _GIB:.2f} GiB in windows of {plan.x.window} px; give more, or a smaller --window"
            )


@dataclass(frozen=True, slots=True)
class Speed:
    """What a short probe of the network measured."""

    seconds_per_window: float
    activation_bytes: int
    """Memory that one batch needs beyond what was held before, as far as the process grew."""

    def seconds(self, plan: Plan) -> float:
        """Estimated wall time of the whole plan; the forward pass is most of it."""
        return 1.15 * self.seconds_per_window * plan.windows


def measure_speed(plan: Plan, predictor: ModelPredictor, repeats: int = 2) -> Speed:
    """Run the network on random windows; the least time counts, for what else the machine does only adds."""
    generator = torch.Generator().manual_seed(0)
    windows = []
    for group in predictor.card.groups:
        shape = (plan.batch, len(group.bands), plan.y.window // group.ratio, plan.x.window // group.ratio)
        numbers = torch.randint(0, 255, shape, generator=generator, dtype=torch.uint8)
        tensor = numbers if group.dtypes[0] == "uint8" else numbers.float() * 40
        windows.append(tensor.to(predictor.device))
    before = peak_rss()
    predictor(windows)
    held = peak_rss() - before
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        predictor(windows).sum().item()  # waits for the device
        times.append(time.perf_counter() - begin)
    return Speed(min(times) / plan.batch, held)


def larger_windows(card: ModelCard) -> tuple[int, ...]:
    """Longer windows than the card's own that its rule allows: less overlap, if the device bears them.

    Shorter ones are no candidates: trim and feather were measured at the card's size, and shorter windows
    have more seams.

    >>> from citycover.builtins import read_builtins
    >>> larger_windows(read_builtins()[0].card)
    (1536, 2048)
    """
    rule = card.window
    if rule.fixed:
        return ()
    sizes = (-(-rule.size * k // (2 * rule.multiple)) * rule.multiple for k in _GROWTH)
    return tuple(size for size in sizes if size <= rule.maximum)


def fastest_window(plans: Mapping[int, Plan], predictor: ModelPredictor) -> int:
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
    repeats = min(_MOST_REPEATS, int(budget / trials[len(tried) - 1]) - 1)
    seconds: dict[int, float] = {}
    for size in tried:
        try:
            seconds[size] = measure_speed(plans[size], predictor, repeats).seconds(plans[size])
        except torch.OutOfMemoryError:
            break
    logger.info("seconds by window: %s", {size: round(s, 1) for size, s in seconds.items()})
    best = first
    for size, time_taken in seconds.items():
        if time_taken < _WORTH * seconds[best]:
            best = size
    return best
