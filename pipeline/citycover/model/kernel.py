"""How pixels of one grid are read on another."""

from typing import Literal

Kernel = Literal["nearest", "bilinear", "cubic", "average"]

KERNELS: tuple[Kernel, ...] = ("nearest", "bilinear", "cubic", "average")
