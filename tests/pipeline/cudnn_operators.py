"""cuDNN's joined operators, computed by a processor in tests: torch has them for CUDA devices alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def cudnn_by_processor() -> Iterator[None]:
    """Give a processor both operators."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("cudnn_convolution_relu", _relu, "CPU")
    library.impl("cudnn_convolution_add_relu", _relu_of_sum, "CPU")
    try:
        yield
    finally:
        library._destroy()


def _relu(
    image: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    return torch.conv2d(image, weight, bias, stride, padding, dilation, groups).relu()


def _relu_of_sum(
    image: Tensor, weight: Tensor, other: Tensor, alpha: float, bias: Tensor | None, stride: list[int],
    padding: list[int], dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    return (torch.conv2d(image, weight, bias, stride, padding, dilation, groups) + alpha * other).relu()
