"""Which form and precision of a network computes: as asked for, as known of this machine, or tried here.

Trials run two small windows of the scene, on a GPU two batches, in each form and precision, and cost a small
share of the run, or are left out: a small scene is mapped by torch in fp32, on a GPU in the fastest precision
that passes the gate, unless an earlier run or `models bench` has found what is faster here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from citycover.compute.verdicts import Verdicts, best_lane
from citycover.errors import MachineError
from citycover.model.bench import BenchRow, Lane, bench, lanes_here
from citycover.model.card import ModelCard
from citycover.model.checks import probe_side, probe_windows
from citycover.model.converted import Shapes
from citycover.model.form import Form, check_form, precisions_of
from citycover.model.precision import Precision
from citycover.model.predictor import Predictor
from citycover.plan.plan import Plan

logger = logging.getLogger(__name__)

TRIAL_SHARE = 0.05
"""Most of a run that choosing form and precision may cost."""

TRIAL_SIDE = 384
"""Pixels of a side of the windows that are tried, or the next that the network takes."""

SAMPLES = 2
"""Windows that are tried in each form and precision."""

_NEAR = 2.0
"""Times the least processor time in small windows that a form may take to be timed in large ones."""

_ALIKE: tuple[Form, ...] = ("cudnn", "openvino")
"""Forms that are set up once for all precisions, or nearly so: most of it is torch's tracer."""


def lanes_asked(
    form: Form | Literal["auto"], precision: Precision | Literal["auto"], predictor: Predictor
) -> tuple[Lane, ...]:
    """Forms and precisions that may be taken; the first is taken where nothing is known of them.

    Raises:
        MachineError: the form that is asked for cannot run here.
    """
    if form != "auto":
        check_form(form, predictor.device.type)
    if form != "auto" and precision != "auto":
        return (Lane(form, precision),)
    here = lanes_here(predictor.device)
    if precision != "auto":
        forms = dict.fromkeys(lane.form for lane in here)
        return tuple(Lane(one, precision) for one in forms if precision in precisions_of(one))
    card = predictor.card
    lanes = tuple(
        lane for lane in here
        if form in ("auto", lane.form) and (lane.precision == "fp32" or card.precision != "fp32")
    )  # fmt: skip
    if not lanes and form != "auto":
        raise MachineError(
            f"the card of {card.name!r} asks for fp32, in which --form {form} does not compute; give another "
            f"--form, or one of {', '.join(precisions_of(form))} as --precision"
        )
    return lanes


def choose_lane(
    lanes: Sequence[Lane],
    predictor: Predictor,
    plan: Plan,
    sha256: str,
    samples: Callable[[], Sequence[Sequence[Tensor]]],
    otherwise: Callable[[], Lane] | None = None,
    shapes: Shapes = (),
) -> Lane:
    """The form and precision of a run.

    Args:
        lanes: those that may be taken, see `lanes_asked`.
        predictor: of the network, as torch runs it, in fp32.
        plan: windows of the run.
        sha256: of what maps.
        samples: reads windows of the scene; called only if something is tried.
        otherwise: what is taken where nothing is known, and a trial would cost too much; None: the first.
        shapes: of the batches of the run; what is kept for them need only be loaded.
    """
    if len(lanes) == 1:
        return lanes[0]
    mpx = plan.windows * plan.window_pixels / 1e6
    verdicts = verdicts_of(sha256, plan, predictor)
    rows = verdicts.read()
    known = {row.lane for row in rows}
    trial = trial_shape(plan, predictor)
    if trying := _affordable([lane for lane in lanes if lane not in known], predictor, mpx, trial):
        rows = verdicts.add(try_lanes(predictor, plan, trying, samples()))
    if not rows:
        return otherwise() if otherwise else lanes[0]
    best = best_lane(
        rows, lanes, mpx, lambda lane: predictor.at(lane.precision, lane.form).setting_up(shapes)
    )
    logger.info("forms: %s; %s is taken", ", ".join(map(_told, rows)), best)
    return best


def verdicts_of(sha256: str, plan: Plan, predictor: Predictor) -> Verdicts:
    """What is known of the forms in windows of a run: on a processor in smaller ones, which tell as much."""
    _, *sides = trial_shape(plan, predictor)
    return Verdicts.of(sha256, sides, predictor.device)


def try_lanes(
    predictor: Predictor,
    plan: Plan,
    lanes: Sequence[Lane],
    samples: Sequence[Sequence[Tensor]],
    repeats: int = 1,
    seconds: float = 0.0,
) -> tuple[BenchRow, ...]:
    """Run windows of the scene in each form and precision; on a processor small ones, else batches.

    Args:
        predictor: of the network, as torch runs it, in fp32.
        plan: windows of the run.
        lanes: forms and precisions.
        samples: windows of the scene.
        repeats: turns at least; the least times count.
        seconds: that turns go on for at least.
    """
    card, device = predictor.card, predictor.device
    count, height, _ = trial_shape(plan, predictor)
    if device.type == "cpu":
        tried = [_middle(windows, card, height) for windows in samples]
    else:
        tried = _batches(samples, count, device)
    return bench(predictor, list(dict.fromkeys((Lane(), *lanes))), tried, repeats, seconds) if tried else ()


def time_in_windows(
    predictor: Predictor,
    plan: Plan,
    rows: Sequence[BenchRow],
    samples: Sequence[Sequence[Tensor]],
    repeats: int,
) -> tuple[BenchRow, ...]:
    """What was found in small windows, with the times of the windows of a run for those that may be fastest.

    A network may take twice as long for a pixel where its windows leave the caches, in one form and not in
    another.

    Args:
        predictor: of the network, as torch runs it, in fp32.
        plan: windows of the run.
        rows: what was found.
        samples: windows of the run.
        repeats: turns; the least times count.
    """
    tried = _batches(samples, plan.batch, predictor.device)
    if not tried:
        return tuple(rows)
    least = min((row.processor_s for row in rows if row.passes and row.mpx_per_s), default=0.0)
    near = [row.lane for row in rows if row.passes and row.mpx_per_s and row.processor_s < _NEAR * least]
    found = {row.lane: row for row in bench(predictor, list(dict.fromkeys((Lane(), *near))), tried, repeats)}
    return tuple(
        row
        if (large := found.get(row.lane)) is None
        else replace(
            row,
            mpx_per_s=large.mpx_per_s,
            processor_s=large.processor_s,
            passes=row.passes and large.passes,
            note=large.note,
        )
        for row in rows
    )


def make_ready(
    predictor: Predictor, rows: Sequence[BenchRow], lanes: Sequence[Lane], mpx: float, shapes: Shapes
) -> None:
    """Make what runs of a size will load: in the form that is fastest once it is there, of all and in fp32.

    Args:
        predictor: of the network, as torch runs it, in fp32.
        rows: what was found of the forms.
        lanes: those that may be taken, see `lanes_asked`.
        mpx: that such a run pushes through the network.
        shapes: of its batches.

    Raises:
        ModelError: a runtime does not take the network in such windows.
    """
    exact = [lane for lane in lanes if lane.precision == "fp32"]
    wanted = dict.fromkeys(best_lane(rows, some, mpx, lambda _lane: 0.0) for some in (lanes, exact) if some)
    for lane in wanted:
        network = predictor.at(lane.precision, lane.form)
        if network.setting_up(shapes):
            network([torch.zeros(s, dtype=getattr(torch, k), device=predictor.device) for s, k in shapes])


def trial_side(card: ModelCard) -> int:
    """Side of the windows that are tried on a processor."""
    return probe_side(card, TRIAL_SIDE)


def trial_shape(plan: Plan, predictor: Predictor) -> tuple[int, int, int]:
    """Windows together, and their sides (y, x): a GPU is as fast as its batches are large."""
    if predictor.device.type == "cpu":
        side = trial_side(predictor.card)
        return 1, side, side
    return plan.batch, plan.y.window, plan.x.window


def _affordable(
    lanes: Sequence[Lane], predictor: Predictor, mpx: float, trial: tuple[int, int, int]
) -> tuple[Lane, ...]:
    """Those that may be tried at a small share of a run that pushes so many Mpx through the network.

    All lanes of a form or none, form by form. By pixels first, for that costs nothing; where a runtime is set
    up, by the time of one trial, too.
    """
    one = math.prod(trial) / 1e6
    once = (1 + 2 * SAMPLES) * one
    budget, alone, pushed, before = TRIAL_SHARE * mpx, 0.0, once, 0.0
    taken: tuple[Lane, ...] = ()
    for form in dict.fromkeys(lane.form for lane in lanes):
        of_form = tuple(lane for lane in lanes if lane.form == form)
        others = {*of_form} - {Lane()}
        needed = pushed + (once + (one if form != "torchscript" else 0)) * len(others)  # loaded once more
        if needed > budget:
            break
        setting_up = predictor.at(of_form[0].precision, form).setting_up(())
        if setting_up and not alone:
            alone = bench(predictor, [Lane()], [_random(predictor, trial)])[0].mpx_per_s
            if not alone:
                break
            budget -= 3 * one
        waits = before + setting_up * (1 if form in _ALIKE else len(of_form))
        if waits and needed / alone + waits > budget / alone:
            break
        pushed, before, taken = needed, waits, (*taken, *of_form)
    return taken if {*taken} - {Lane()} else ()


def _random(predictor: Predictor, trial: tuple[int, int, int]) -> list[Tensor]:
    count, *sides = trial
    height, width = sides
    return probe_windows(predictor.card, (height, width), predictor.device, eight_bit=True, count=count)


def _batches(samples: Sequence[Sequence[Tensor]], count: int, device: torch.device) -> list[list[Tensor]]:
    """As many as are timed, of so many windows each; none where there is no window."""
    return [_batch(samples, count * k, count, device) for k in range(SAMPLES)] if samples else []


def _batch(samples: Sequence[Sequence[Tensor]], first: int, count: int, device: torch.device) -> list[Tensor]:
    """So many windows together, on the device, from the first on and around."""
    windows = [samples[(first + k) % len(samples)] for k in range(count)]
    return [torch.cat(list(group)).to(device) for group in zip(*windows, strict=True)]


def _middle(windows: Sequence[Tensor], card: ModelCard, side: int) -> list[Tensor]:
    """The middle of a window, in every band group."""
    unit = math.lcm(*(group.ratio for group in card.groups))
    cut = []
    for tensor, group in zip(windows, card.groups, strict=True):
        before = (
            max(0, size * group.ratio - side) // 2 // unit * unit // group.ratio for size in tensor.shape[2:]
        )
        y, x = (slice(first, first + side // group.ratio) for first in before)
        cut.append(tensor[:, :, y, x])
    return cut


def _told(row: BenchRow) -> str:
    if not row.mpx_per_s:
        return f"{row.lane} {row.note}"
    return f"{row.lane} {row.mpx_per_s:.3g} Mpx/s{'' if row.passes else ', flips too much'}"
