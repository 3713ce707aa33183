"""Which form and precision of a network computes: as asked for, as known of this machine, or tried here.

Trials run two small windows of the scene in each form and precision, and cost a small share of the run, or
are left out: a small scene is mapped by torch in fp32, unless an earlier run or `models bench` has found
what is faster here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from citycover.compute.verdicts import SETTING_UP, Verdicts, best_lane
from citycover.model.bench import BenchRow, Lane, bench, lanes_here
from citycover.model.card import ModelCard
from citycover.model.checks import probe_side, probe_windows
from citycover.model.form import Form, check_form
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

_ALIKE: tuple[Form, ...] = ("openvino",)
"""Forms that are set up once for all precisions."""


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
        return tuple(Lane(one, precision) for one in dict.fromkeys(lane.form for lane in here))
    exact_only = predictor.card.precision == "fp32"
    return tuple(
        lane for lane in here if form in ("auto", lane.form) and not (exact_only and lane.precision != "fp32")
    )


def choose_lane(
    lanes: Sequence[Lane],
    predictor: Predictor,
    plan: Plan,
    sha256: str,
    samples: Callable[[], Iterable[Sequence[Tensor]]],
) -> Lane:
    """The form and precision of a run.

    Args:
        lanes: those that may be taken, see `lanes_asked`.
        predictor: of the network, as torch runs it, in fp32.
        plan: windows of the run.
        sha256: of what maps.
        samples: reads windows of the scene; called only if something is tried.
    """
    if len(lanes) == 1:
        return lanes[0]
    card = predictor.card
    mpx = plan.windows * plan.window_pixels / 1e6
    verdicts = Verdicts.of(sha256, [trial_side(card)], predictor.device)
    rows = verdicts.read()
    known = {row.lane for row in rows}
    if trying := _affordable([lane for lane in lanes if lane not in known], predictor, mpx):
        rows = verdicts.add(try_lanes(predictor, trying, samples()))
    if not rows:
        return lanes[0]
    best = best_lane(rows, lanes, mpx)
    logger.info("forms: %s; %s is taken", ", ".join(map(_told, rows)), best)
    return best


def try_lanes(
    predictor: Predictor, lanes: Sequence[Lane], samples: Iterable[Sequence[Tensor]], repeats: int = 1
) -> tuple[BenchRow, ...]:
    """Run small windows, cut from windows of the scene, in each form and precision."""
    side = trial_side(predictor.card)
    cut = [_middle(windows, predictor.card, side, predictor.device) for windows in samples]
    return bench(predictor, list(dict.fromkeys((Lane(), *lanes))), cut, repeats) if cut else ()


def trial_side(card: ModelCard) -> int:
    """Side of the windows that are tried."""
    return probe_side(card, TRIAL_SIDE)


def _affordable(lanes: Sequence[Lane], predictor: Predictor, mpx: float) -> tuple[Lane, ...]:
    """Those that may be tried at a small share of a run that pushes so many Mpx through the network.

    All lanes of a form or none, form by form. By pixels first, for that costs nothing; where a runtime is set
    up, by the time of one window, too.
    """
    side = trial_side(predictor.card)
    once = (1 + 2 * SAMPLES) * side**2 / 1e6
    budget, alone, pushed, before = TRIAL_SHARE * mpx, 0.0, once, 0.0
    taken: tuple[Lane, ...] = ()
    for form in dict.fromkeys(lane.form for lane in lanes):
        of_form = tuple(lane for lane in lanes if lane.form == form)
        needed = pushed + once * len({*of_form} - {Lane()})
        if needed > budget:
            break
        if SETTING_UP[form] and not alone:
            alone = bench(predictor, [Lane()], [_random(predictor, side)])[0].mpx_per_s
            if not alone:
                break
            budget -= 3 * side**2 / 1e6
        waits = before + SETTING_UP[form] * (1 if form in _ALIKE else len(of_form))
        if waits and needed / alone + waits > budget / alone:
            break
        pushed, before, taken = needed, waits, (*taken, *of_form)
    return taken if {*taken} - {Lane()} else ()


def _random(predictor: Predictor, side: int) -> list[Tensor]:
    return probe_windows(predictor.card, side, predictor.device, eight_bit=True, count=1)


def _middle(windows: Sequence[Tensor], card: ModelCard, side: int, device: torch.device) -> list[Tensor]:
    """The middle of a window, in every band group, on the device."""
    unit = math.lcm(*(group.ratio for group in card.groups))
    cut = []
    for tensor, group in zip(windows, card.groups, strict=True):
        before = (
            max(0, size * group.ratio - side) // 2 // unit * unit // group.ratio for size in tensor.shape[2:]
        )
        y, x = (slice(first, first + side // group.ratio) for first in before)
        cut.append(tensor[:, :, y, x].to(device))
    return cut


def _told(row: BenchRow) -> str:
    if not row.mpx_per_s:
        return f"{row.lane} {row.note}"
    return f"{row.lane} {row.mpx_per_s:.3g} Mpx/s{'' if row.passes else ', flips too much'}"
