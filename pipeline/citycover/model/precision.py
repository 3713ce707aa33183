"""Precisions in which a network may run, and the gate that they must pass. Plans name them without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

GATE_MEAN = 0.005
"""Largest mean |p_fast - p_fp32|."""

GATE_MARGIN = 0.1
"""fp32 margin between the two best classes above which a flip is more than a near-tie."""

GATE_SHARE = 1e-5
"""Largest share of pixels that may flip above that margin."""


def fast_precision(device: torch.device) -> Precision | None:
    """The reduced precision that the hardware computes in natively, or None."""
    import torch

    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_tile")):
        return "bf16"
    return None


def _cpu_has(feature: str) -> bool:
    """Ask torch, which has no public word for it yet."""
    import torch

    ask = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(ask and ask())


def passes_gate(exact: Tensor, fast: Tensor) -> bool:
    """Whether reduced precision flips near-ties only.

    Args:
        exact: (n, c, y, x) fp32 probabilities.
        fast: the same in reduced precision.
    """
    import torch

    if not torch.isfinite(fast).all() or (exact - fast).abs().mean() > GATE_MEAN:
        return False
    if exact.shape[1] < 2:
        return True
    best = exact.topk(2, dim=1)
    margin = best.values[:, 0] - best.values[:, 1]
    flipped = (fast.argmax(1) != best.indices[:, 0]) & (margin > GATE_MARGIN)
    return bool(flipped.float().mean() <= GATE_SHARE)
