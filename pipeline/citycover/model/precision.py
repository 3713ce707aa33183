"""Precisions in which a network may run."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
