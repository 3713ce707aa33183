"""Whether a network keeps what its card promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from citycover.errors import ModelError
from citycover.model.archive import last_line
from citycover.model.card import ModelCard

if TYPE_CHECKING:
    import torch


def check_against_card(
    function: Callable[..., Tensor],
    card: ModelCard,
    device: torch.device | str = "cpu",
    sides: Sequence[int] | None = None,
) -> None:
    """Run windows of random digital numbers and compare what comes out with the card.

    Args:
        function: the network.
        card: what it promises.
        device: where it lies.
        sides: of the windows, in pixels; None: a small one that the card allows.

    Raises:
        ModelError: the network takes other inputs, or gives another shape, type or non-finite numbers.
    """
    import torch

    kinds = sorted({d == "uint8" for group in card.groups for d in group.dtypes})
    for turn, (side, eight_bit) in enumerate((s, e) for s in sides or (probe_side(card),) for e in kinds):
        windows = probe_windows(card, side, device, eight_bit=eight_bit, count=1 + turn % 2)
        said = ", ".join(f"{tuple(w.shape)} {str(w.dtype).removeprefix('torch.')}" for w in windows)
        try:
            with torch.inference_mode():
                scores = function(*windows)
        except Exception as error:
            raise ModelError(
                f"the network does not take the windows that the card of {card.name!r} promises, {said}: "
                f"{last_line(error)}; mend groups, dtypes or window in the card (`fixed = true` where only "
                "one size works), or the network"
            ) from error
        _check_scores(scores, card, len(windows[0]), side)


def probe_side(card: ModelCard, floor: int = 64) -> int:
    """A small, quick window side that the card allows: `floor` or the next multiple of all that counts."""
    rule = card.window
    if rule.fixed:
        return rule.size
    step = math.lcm(rule.multiple, card.output_scale.denominator, *(group.ratio for group in card.groups))
    return min(rule.size, -(-floor // step) * step)


def probe_windows(
    card: ModelCard,
    side: int | tuple[int, int],
    device: torch.device | str = "cpu",
    *,
    eight_bit: bool,
    count: int = 2,
    seed: int = 0,
) -> list[Tensor]:
    """One (count, band, y / ratio, x / ratio) tensor of random digital numbers a group.

    `side` is that of a square, or (y, x), in pixels of the finest group.
    The pipeline hands uint8 files over as they are and everything else as float32. `eight_bit` asks for
    uint8 from the groups that can be either.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    windows = []
    for group in card.groups:
        small = "uint8" in group.dtypes and (eight_bit or set(group.dtypes) == {"uint8"})
        low, high = group.value_range or (0.0, 255.0 if small else 10000.0)
        if small:
            low, high = max(0.0, low), min(255.0, high)
        y, x = (n // group.ratio for n in ((side, side) if isinstance(side, int) else side))
        shares = torch.rand(count, len(group.bands), y, x, generator=generator)
        numbers = shares * (high - low) + low
        windows.append(numbers.to(torch.uint8 if small else torch.float32).to(device))
    return windows


def _check_scores(scores: object, card: ModelCard, count: int, side: int) -> None:
    import torch

    if not isinstance(scores, torch.Tensor):
        raise ModelError(
            f"the network of {card.name!r} returns a {type(scores).__name__}; one tensor of scores "
            "(n, channel, y, x) is needed; export the part that gives it"
        )
    out = int(side * card.output_scale)
    wanted = (count, card.scores, out, out)
    if tuple(scores.shape) != wanted:
        raise ModelError(
            f"the network of {card.name!r} gives scores of shape {tuple(scores.shape)}; its card "
            f"promises {wanted} (n, channels, y, x); mend channels, legend or output_scale in the card"
        )
    if not scores.is_floating_point():
        raise ModelError(
            f"the network of {card.name!r} gives {scores.dtype} numbers; floating-point scores are needed, "
            "before any argmax"
        )
    if not bool(torch.isfinite(scores).all()):
        raise ModelError(
            f"the network of {card.name!r} gives non-finite scores on random digital numbers in its value "
            "range; check value_range in the card and the normalisation inside the network"
        )
    if card.activation == "probabilities" and not bool(((scores >= -1e-3) & (scores <= 1.001)).all()):
        raise ModelError(
            f"the card of {card.name!r} says probabilities, and the network gives scores from "
            f'{float(scores.min()):.3g} to {float(scores.max()):.3g}; write activation = "logits"'
        )


def check_scores(scores: Tensor, card: ModelCard, windows: int, side: tuple[int, int]) -> None:
    """Raise ModelError unless scores have the shape that the card promises."""
    wanted = (windows, card.scores, *side)
    if tuple(scores.shape) != wanted:
        raise ModelError(
            f"model {card.name!r} gave scores of shape {tuple(scores.shape)}; its card promises {wanted} "
            "(windows, channels, y, x); mend the card and export again"
        )
