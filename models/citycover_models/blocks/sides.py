"""Refusing windows that a network cannot take, with the nearest that it can."""

from __future__ import annotations

from citycover.errors import ModelError


def nearest_side(side: int, multiple: int, least: int) -> int:
    """The multiple of `multiple` that is nearest to `side` (the larger of two) and at least `least`."""
    down = side // multiple * multiple
    up = down + multiple
    near = down if side - down < up - side else up
    smallest = (least + multiple - 1) // multiple * multiple
    return max(near, smallest)


def check_sides(network: str, height: int, width: int, multiple: int, least: int = 1) -> None:
    """Refuse a window whose sides are not multiples of `multiple` from `least` on.

    TorchScript compiles this function with the network that calls it, so model files refuse as well.

    Raises:
        ModelError: names the nearest window that fits. (A scripted network raises `torch.jit.Error` that ends
            with the same words.)
    """
    if height % multiple != 0 or width % multiple != 0 or height < least or width < least:
        y, x = nearest_side(height, multiple, least), nearest_side(width, multiple, least)
        raise ModelError(
            f"{network} got a window of {height} x {width} px; it needs sides that are multiples of "
            f"{multiple} and at least {max(multiple, least)}; the nearest that fits is {y} x {x}"
        )
