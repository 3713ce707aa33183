"""A model file is proven: the same scores as the network, in every size that its card allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover.model.card import ModelCard
from citycover.model.checks import probe_side, probe_windows
from citycover.model.gate import passes_gate
from citycover.model.probabilities import to_probabilities

TOLERANCE = 1e-5
"""Largest |eager - exported| / (1 + |eager|) of a score, fp32."""


def go_on() -> None:
    """Heeds nothing: what is begun is ended."""


def safe_precision(network: nn.Module, card: ModelCard) -> Literal["any", "fp32"]:
    """`fp32` where bf16 flips more than near-ties on random windows, or cannot be computed at all."""
    for seed, side in enumerate(probe_sides(card)[:2]):
        windows = proof_windows(card, side, seed=seed)
        with torch.inference_mode():
            exact = to_probabilities(network(*windows), card)
            try:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    fast = to_probabilities(network(*windows).float(), card)
            except RuntimeError:
                return "fp32"
        if not passes_gate(exact, fast):
            return "fp32"
    return "any"


def probe_sides(card: ModelCard) -> tuple[int, ...]:
    """Three window sides that the card allows, or the only one."""
    if card.window.fixed:
        return (card.window.size,)
    side = probe_side(card)
    step = probe_side(card, floor=1)
    return (side, side + step, side + 3 * step)


def compare(
    eager: Callable[..., Tensor],
    exported: Callable[..., Tensor],
    card: ModelCard,
    sides: tuple[int, ...],
    heed: Callable[[], None] = go_on,
) -> float:
    """Largest relative difference of two forms of a network on random windows of several sizes and batches.

    `heed` is called before each size, and may raise.

    Raises:
        ModelError: it is larger than `TOLERANCE`.
    """
    worst = 0.0
    for turn, side in enumerate(sides):
        heed()
        windows = proof_windows(card, side, count=1 + turn, seed=turn)
        with torch.inference_mode():
            one, two = eager(*windows), exported(*windows)
        if one.shape != two.shape:
            raise ModelError(
                f"network {card.name!r} changes when it is exported: {tuple(one.shape)} became "
                f"{tuple(two.shape)} for windows of {side}; its code must not fix sizes"
            )
        worst = max(worst, float(((one - two).abs() / (1.0 + one.abs())).max()))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"network {card.name!r} changes when it is exported: scores differ by {worst:.2g}, at most "
            f"{TOLERANCE:.0e} is needed; look for randomness, or for code that depends on training mode"
        )
    return worst


def proof_windows(card: ModelCard, side: int, *, count: int = 2, seed: int = 0) -> list[Tensor]:
    """Windows of numbers that the card allows, for the comparison."""
    eight_bit = all("uint8" in group.dtypes for group in card.groups)
    return probe_windows(card, side, eight_bit=eight_bit, count=count, seed=seed)
