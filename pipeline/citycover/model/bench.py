"""How fast a model runs here in each form and precision, and how far each is from what torch says in fp32."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from citycover.errors import CitycoverError, MachineError, PlanError
from citycover.machine.memory import free_memory, memory_limit
from citycover.model.card import ModelCard
from citycover.model.checks import probe_windows
from citycover.model.form import Form, forms_here, precisions_of
from citycover.model.gate import fast_precisions, passes_gate
from citycover.model.precision import PRECISIONS, Precision
from citycover.model.predictor import ModelPredictor, Predictor
from citycover.model.probabilities import to_probabilities

_FLOAT = 4
"""Bytes of a number."""

TIMED = 2
"""Samples whose time is taken in a turn; on all of them scores are compared."""

Windows = Sequence[Tensor]
"""One (n, band, y, x) tensor a band group, on the device."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A form and a precision."""

    form: Form = "torchscript"
    precision: Precision = "fp32"

    def __str__(self) -> str:
        """For people."""
        return f"{self.form} {self.precision}"


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One form of a model in one precision."""

    form: Form
    precision: Precision
    mpx_per_s: float = 0.0
    """10^6 input pixels of the finest group a second; 0 where it cannot run."""
    first_s: float = 0.0
    """Seconds until the first scores, compiling counted."""
    disagreement: float = 0.0
    """Share of the pixels whose class is another than by torch in fp32."""
    passes: bool = False
    """Whether only near-ties flip."""
    note: str = ""
    """Why it cannot run."""
    processor_s: float = 0.0
    """Seconds of processors for 10^6 input pixels: what else the machine does adds little to them."""
    first_processor_s: float = 0.0
    """Seconds of processors until the first scores."""
    again_s: float = 0.0
    """Seconds until the first scores of a network that was made ready before, and is loaded anew."""
    again_processor_s: float = 0.0
    """Seconds of processors for the same."""

    @property
    def lane(self) -> Lane:
        """Which."""
        return Lane(self.form, self.precision)


def lanes_possible(device: torch.device) -> tuple[Lane, ...]:
    """Forms and precisions that can be run on a device, slow ones among them."""
    kinds = PRECISIONS if device.type == "cuda" else ("fp32", "bf16")
    return tuple(
        Lane(form, precision)
        for form in forms_here(device.type) for precision in kinds if precision in precisions_of(form)
    )  # fmt: skip


def lanes_here(device: torch.device) -> tuple[Lane, ...]:
    """Forms and precisions that a device has, that of torch in fp32 first."""
    quick = ("fp32", *fast_precisions(device))
    return tuple(lane for lane in lanes_possible(device) if lane.precision in quick)


def lanes_measured(
    form: Form | Literal["auto"], precision: Precision | Literal["auto"], device: torch.device
) -> tuple[Lane, ...]:
    """What is measured where a form or a precision may be asked for: slow ones too."""
    if precision == "auto":
        return tuple(lane for lane in lanes_possible(device) if form in ("auto", lane.form))
    if form != "auto":
        return (Lane(form, precision),)
    return tuple(Lane(one, precision) for one in forms_here(device.type) if precision in precisions_of(one))


def bench_model(
    path: Path,
    device: torch.device,
    lanes: Sequence[Lane],
    *,
    window: int | None = None,
    batch: int = 1,
    repeats: int = 5,
) -> tuple[BenchRow, ...]:
    """Measure forms and precisions on the same random windows.

    Args:
        path: of the model file, which is trusted.
        device: where.
        lanes: forms and precisions.
        window: side in input pixels; None: the card's.
        batch: windows together.
        repeats: turns; in each, every form runs once, so that a busy machine disturbs all alike.

    Raises:
        PlanError: the model does not take such windows.
        MachineError: a form or a precision is none of the device, or memory is too small for the windows.
    """
    predictor = ModelPredictor.load(path, device)
    card = predictor.card
    side = window or card.window.size
    if why := card.window.why_not(side):
        raise PlanError(f"model {card.name!r} {why}")
    _check_batch(card, side, batch)
    eight_bit = all("uint8" in group.dtypes for group in card.groups)
    windows = probe_windows(card, side, device, eight_bit=eight_bit, count=batch)
    return bench(predictor, lanes, [windows], repeats)


def _check_batch(card: ModelCard, side: int, batch: int) -> None:
    """Refuse random windows that this machine cannot hold: `map` takes as many as a row of a scene has.

    What a network keeps of its own is not known here, so what passes may still be too much.

    Raises:
        MachineError: with how many there may be.
    """
    numbers = sum(len(group.bands) * (side // group.ratio) ** 2 for group in card.groups)
    scores = len(card.channels) * int(side * card.output_scale) ** 2
    one = _FLOAT * (numbers + scores)
    free = min(free_memory(), memory_limit() or math.inf)
    if batch * one > free:
        raise MachineError(
            f"--batch {batch}: windows of {side} px and their scores take {batch * one / 2**30:.1f} GiB at "
            f"least, and there are {free / 2**30:.1f}; give {max(1, int(free / one))} at most, or a smaller "
            "--window"
        )


def bench(
    predictor: Predictor,
    lanes: Sequence[Lane],
    samples: Sequence[Windows],
    repeats: int = 1,
    seconds: float = 0.0,
) -> tuple[BenchRow, ...]:
    """Run the same windows in each form and precision, in turns; the least time counts.

    Args:
        predictor: of the network, in fp32 by torch: what the others are compared with.
        lanes: forms and precisions.
        samples: windows of one shape, to be run one after the other.
        repeats: turns over the first samples.
        seconds: that turns go on for at least: a network that takes milliseconds needs many of them, for what
            else the machine does takes longer.
    """
    fast = [[w.contiguous(memory_format=torch.channels_last) for w in windows] for windows in samples]
    exact = _Heat(Lane(), predictor, fast)
    heats = [
        exact if lane == Lane() else _Heat(lane, predictor.at(lane.precision, lane.form), fast, exact)
        for lane in lanes
    ]
    begin, turns = time.perf_counter(), 0
    while turns < repeats or time.perf_counter() - begin < seconds:
        turns += 1
        for heat in heats:
            heat.run()
    mpx = fast[0][0].shape[0] * fast[0][0][0, 0].numel() / 1e6
    return tuple(heat.row(mpx) for heat in heats)


@dataclass
class _Heat:
    """One form and precision, on its way through the samples."""

    lane: Lane
    predictor: Predictor | None
    samples: Sequence[Windows]
    exact: _Heat | None = None
    """What it is compared with; None: this is it."""
    why: str = ""
    first: float = 0.0
    first_processor: float = 0.0
    again: float = 0.0
    again_processor: float = 0.0
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    found: list[Tensor] = field(default_factory=list)
    """(n, c, y, x) probabilities of each sample, of what others are compared with."""
    flipped: float = 0.0
    """Share of pixels of another class."""
    passes: bool = True

    def __post_init__(self) -> None:
        """Warm up; what fails is out."""
        if self.exact is not None and self.exact.predictor is None:
            self.predictor, self.why = None, self.exact.why
        try:
            if self.predictor is not None:
                self.first, self.first_processor = self._timed(self.predictor)
                if self.lane.form != "torchscript":
                    self.predictor.forget()
                    self.again, self.again_processor = self._timed(self.predictor)
                self._compare()
        except (CitycoverError, RuntimeError) as error:
            self.predictor, self.why = None, f"cannot run: {str(error).strip().splitlines()[-1]}"

    def _compare(self) -> None:
        """Sample by sample, so that a GPU need not hold the probabilities of all forms."""
        if self.exact is None:
            self.found = [self._probabilities(windows) for windows in self.samples]
            return
        for there, windows in zip(self.exact.found, self.samples, strict=True):
            here = self._probabilities(windows)
            self.passes &= passes_gate(there, here)
            self.flipped += float((_classes(there) != _classes(here)).float().mean()) / len(self.samples)

    def _probabilities(self, windows: Windows) -> Tensor:
        assert self.predictor is not None
        with torch.inference_mode():
            return to_probabilities(self.predictor(windows), self.predictor.card)

    def _used(self) -> float:
        """Seconds of processors so far; of a GPU, which has no such clock, seconds."""
        on_processor = self.predictor is None or self.predictor.device.type == "cpu"
        return _processor_s() if on_processor else time.perf_counter()

    def _timed(self, predictor: Predictor) -> tuple[float, float]:
        """Seconds, and of processors, that the first sample takes."""
        begin, used = time.perf_counter(), self._used()
        predictor(self.samples[0])
        return time.perf_counter() - begin, self._used() - used

    def run(self) -> None:
        if self.predictor is None:
            return
        for windows in self.samples[:TIMED]:
            begin, used = time.perf_counter(), self._used()
            self.predictor(windows).float().sum().item()  # waits for the device
            self.seconds.append(time.perf_counter() - begin)
            self.processor.append(self._used() - used)

    def row(self, mpx: float) -> BenchRow:
        lane = self.lane
        if self.predictor is None:
            return BenchRow(lane.form, lane.precision, note=self.why)
        speed, used = mpx / min(self.seconds), min(self.processor) / mpx
        return BenchRow(
            lane.form, lane.precision, speed, self.first, self.flipped, self.passes,
            processor_s=used, first_processor_s=self.first_processor,
            again_s=self.again, again_processor_s=self.again_processor,
        )  # fmt: skip


def _processor_s() -> float:
    """Seconds of processors so far, those of processes that have ended counted: compilers among them."""
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _classes(probabilities: Tensor) -> Tensor:
    """(n, y, x) best channel; of one channel, whether it is likelier than not."""
    return probabilities.argmax(1) if probabilities.shape[1] > 1 else probabilities[:, 0] > 0.5
