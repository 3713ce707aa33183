"""The reduced precisions that a device has, and the gate that they must pass."""

from __future__ import annotations

import torch
from torch import Tensor

from citycover.model.precision import Precision

GATE_MEAN = 0.005
"""Largest mean |p_fast - p_fp32|."""

GATE_MARGIN = 0.1
"""fp32 margin between the two best classes above which a flip is more than a near-tie."""

GATE_SHARE = 1e-5
"""Largest share of pixels that may flip above that margin."""


def fast_precisions(device: torch.device) -> tuple[Precision, ...]:
    """Precisions below fp32 that the hardware computes in natively, the fastest first."""
    fast = fast_precision(device)
    ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return (*((fast,) if fast else ()), *(("tf32",) if ampere else ()))


def fast_precision(device: torch.device) -> Precision | None:
    """The reduced precision that the hardware computes in natively, or None."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_tile")):
        return "bf16"
    return None


def _cpu_has(feature: str) -> bool:
    """Ask torch, which has no public word for it yet."""
    ask = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(ask and ask())


def passes_gate(exact: Tensor, fast: Tensor) -> bool:
    """Whether reduced precision flips near-ties only.

    Args:
        exact: (n, c, y, x) fp32 probabilities.
        fast: the same in reduced precision.
    """
    if not torch.isfinite(fast).all() or (exact - fast).abs().mean() > GATE_MEAN:
        return False
    if exact.shape[1] < 2:
        return True
    best = exact.topk(2, dim=1)
    margin = best.values[:, 0] - best.values[:, 1]
    flipped = (fast.argmax(1) != best.indices[:, 0]) & (margin > GATE_MARGIN)
    return bool(flipped.float().mean() <= GATE_SHARE)
