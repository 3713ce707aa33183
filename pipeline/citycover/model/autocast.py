"""What torch computes in, in a precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from citycover.model.precision import Precision

_REDUCED: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """What a network computes in, in a precision; nothing is changed for fp32."""
    if precision == "tf32":
        return _tf32()
    reduced = _REDUCED.get(precision)
    return contextlib.nullcontext() if reduced is None else torch.autocast(device.type, dtype=reduced)


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    convolutions.allow_tf32 = products.allow_tf32 = True
    try:
        yield
    finally:
        convolutions.allow_tf32 = products.allow_tf32 = False
