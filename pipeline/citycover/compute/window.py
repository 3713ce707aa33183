"""Which window a run takes: the card's own, or a longer one that overlaps less and is faster here."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from dataclasses import replace

from citycover.compute.trials import MOST_REPEATS, PROBE_SHARE, Speed, measure_speed
from citycover.errors import is_out_of_memory
from citycover.model.card import ModelCard
from citycover.model.predictor import Predictor
from citycover.plan.plan import Plan

logger = logging.getLogger(__name__)

_WORTH = 0.95
"""A larger window takes more memory: it must take less than this part of the time."""

_GROWTH = (3, 4)
"""Windows that are tried beside the card's own, in halves of it."""


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


def _tried(plan: Plan, predictor: Predictor, repeats: int) -> Speed | None:
    """How fast the network is in windows of a plan; None where they do not fit into memory."""
    try:
        return measure_speed(plan, predictor, repeats)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
