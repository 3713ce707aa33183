"""Whether a network keeps what its card promises."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from torch import Tensor

from citycover.errors import CitycoverError, ModelError, StoppedError, is_out_of_memory
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.model.network import last_line

if TYPE_CHECKING:
    import torch

_DEVICE_WRITTEN = (
    "a device is written into the network (cuda:0?); let it make its tensors where its input lies "
    "(`device=x.device`), and script it again"
)
_OTHER_NUMBERS = (
    "its weights are no float32 numbers, as windows are; call `network.float()` before it is scripted"
)
_REMEDIES = {
    r"from the '\w+' backend|not compiled with CUDA|no NVIDIA driver|on the same device": _DEVICE_WRITTEN,
    r"\((c10::)?\w+\) and (weight|bias) type|expected scalar type|mixed dtype": _OTHER_NUMBERS,
}
"""What to do about errors of torch that do not say it."""
_MEND_CARD = (
    "mend groups, dtypes or window in the card (`fixed = true` where only one size works), or the network"
)
_MEND_NETWORK = "mend the network, or the sizes of windows that its card allows"

PROBABILITIES = (-1e-3, 1.001)
"""From where to where rounding may take a probability."""


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
                f"{last_line(error)}; {_remedy(error, _MEND_CARD)}"
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


def run_network(network: Callable[..., object], windows: Sequence[Tensor], card: ModelCard) -> Tensor:
    """Scores of a network for (n, band, y, x) windows, whatever happens inside of it.

    Raises:
        ModelError: it fails, or gives something else than one tensor of floating-point numbers. Memory that
            is used up is no fault of the network, and passes as it is.
        StoppedError: the run was stopped while the network was compiled.
    """
    try:
        scores = network(*windows)
    except (CitycoverError, StoppedError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        count, _, height, width = windows[0].shape
        raise ModelError(
            f"the network of {card.name!r} fails on a batch of {count} windows of {height} x {width} px: "
            f"{last_line(error)}; {_remedy(error, _MEND_NETWORK)}"
        ) from error
    return _one_tensor(scores, card)


def _remedy(error: Exception, usual: str) -> str:
    """What to do about a failure inside a network; `usual` where torch's words tell nothing more."""
    return next((remedy for words, remedy in _REMEDIES.items() if re.search(words, str(error))), usual)


def check_scores(scores: Tensor, card: ModelCard, windows: int, side: tuple[int, int]) -> None:
    """Raise ModelError unless scores have the shape that the card promises."""
    wanted = (windows, card.scores, *side)
    if tuple(scores.shape) != wanted:
        raise ModelError(
            f"the network of {card.name!r} gives scores of shape {tuple(scores.shape)}; its card promises "
            f"{wanted} (windows, channels, y, x); mend channels, legend or output_scale in the card"
        )


def are_probabilities(low: float, high: float) -> bool:
    """Whether numbers from `low` to `high` may be probabilities; not NaN."""
    return PROBABILITIES[0] <= low <= high <= PROBABILITIES[1]


def refuse_numbers(low: float, high: float, card: ModelCard, window: Window) -> NoReturn:
    """Say why what a network gave for a window of the scene cannot be probabilities.

    Args:
        low: least of what became of its scores; NaN where one of them is.
        high: the largest.
        card: of the network.
        window: pixels of the scene, those beyond its border counted.
    """
    where = (
        f"the window of {window.height} x {window.width} px at row {window.row}, column {window.col} "
        "of the scene"
    )
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError(
            f"the network of {card.name!r} gives numbers that are not finite (NaN or infinite) for {where}; "
            "check value_range in its card against the digital numbers there, and its normalisation, or "
            "give --precision fp32 if it was less"
        )
    raise ModelError(
        f"the network of {card.name!r} gives scores from {low:.3g} to {high:.3g} for {where}, and its card "
        'says probabilities, which lie from 0 to 1; write activation = "logits" in the card if that is what '
        "they are"
    )


def _check_scores(scores: object, card: ModelCard, count: int, side: int) -> None:
    import torch

    found = _one_tensor(scores, card)
    out = int(side * card.output_scale)
    check_scores(found, card, count, (out, out))
    if not bool(torch.isfinite(found).all()):
        raise ModelError(
            f"the network of {card.name!r} gives non-finite scores on random digital numbers in its value "
            "range; check value_range in the card and the normalisation inside the network"
        )
    low, high = PROBABILITIES
    if card.activation == "probabilities" and not bool(((found >= low) & (found <= high)).all()):
        raise ModelError(
            f"the card of {card.name!r} says probabilities, and the network gives scores from "
            f'{float(found.min()):.3g} to {float(found.max()):.3g}; write activation = "logits"'
        )


def _one_tensor(scores: object, card: ModelCard) -> Tensor:
    import torch

    if not isinstance(scores, torch.Tensor):
        raise ModelError(
            f"the network of {card.name!r} returns a {type(scores).__name__}; one tensor of scores "
            "(n, channel, y, x) is needed; export the part that gives it"
        )
    if not scores.is_floating_point():
        raise ModelError(
            f"the network of {card.name!r} gives {scores.dtype} numbers; floating-point scores are needed, "
            "before any argmax"
        )
    return scores
