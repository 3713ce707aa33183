"""Precisions in which a network may run."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""tf32: fp32 numbers of which a GPU multiplies ten bits of mantissa; of CUDA devices alone."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
