r"""Trim and feather of a network, measured: how far from a window's edge its classes depend on the window.

Two windows look at the same texture, one shifted by a multiple of the stride. Where they overlap, a network
whose padding contaminates nothing gives the same classes; the share of pixels that differ, counted only
farther than m pixels from every edge, falls with m:

    window A  |----m----|==============================|----m----|
    window B         |----m----|==============================|----m----|
                               |==== compared at m ====|

The trim is the smallest m at which it falls under 0.05 %, or at which it stops falling: networks that attend
to the whole window differ everywhere, and there the feather earns its width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from citycover.model.card import ModelCard
from citycover.model.checks import probe_windows

ENOUGH = 0.0005
"""Share of differing pixels under which a margin is wide enough."""

_STILL_FALLING = 0.6
"""A wider margin must leave at most this share of what the one before left, or falling has stopped."""

_ONE_CLASS = 0.95
"""Share of a texture from which one class is all that the network sees in it."""

_LARGEST_PROBE = 512
"""Window side of the probe where the card leaves it open."""


@dataclass(frozen=True, slots=True)
class Margins:
    """What was found, in input pixels of the finest group."""

    trim: int
    feather: int
    differs: tuple[tuple[int, float], ...]
    """Margins tried, and the share of pixels that differed farther than that from every edge."""
    enough: bool
    """True: the share fell under `ENOUGH`; False: it stopped falling before."""

    @property
    def left(self) -> float:
        """Share of pixels that still differ at the trim chosen."""
        return dict(self.differs)[self.trim]

    def on(self, card: ModelCard) -> ModelCard:
        """The card with these margins, and what they leave."""
        found = {"trim": self.trim, "feather": self.feather, "disagreement": round(self.left, 6)}
        return ModelCard(**(dict(card) | found))


def measurable(card: ModelCard) -> bool:
    """Whether windows can be compared pixel by pixel: label grids coarser than their input cannot."""
    return card.output_scale >= 1 and card.task == "classes"


def measure_margins(network: Callable[..., Tensor], card: ModelCard, images: int = 3) -> Margins | None:
    """Find trim and feather on smooth random textures; two forward passes for each of `images`.

    The feather is not tried out: it follows from the trim, or is an eighth of the window where none helps.

    Args:
        network: raw windows in, scores out.
        card: its window rule and stride; what it says of trim and feather is not looked at.
        images: textures to look at; each is seen from two windows, shifted by another multiple.

    Returns:
        None where one class fills nearly all of every texture, or the window has no pixel that deep: nothing
        could differ, so nothing is known.
    """
    unit = math.lcm(card.stride, *(group.ratio for group in card.groups))
    side = _probe_side(card, unit)
    tried = _tried(card, unit, side)
    counts = torch.zeros(len(tried), 2, dtype=torch.float64)
    varied = False
    for turn in range(images):
        shift = unit * max(1, (turn + 1) * side // (3 * (images + 1)) // unit)
        one, two, depth = _compare(network, card, side, shift, turn)
        varied |= float((one == one.mode().values.mode().values).double().mean()) < _ONE_CLASS
        for k, margin in enumerate(tried):
            inside = depth >= margin * int(card.output_scale)
            counts[k] += torch.tensor([float((one != two)[inside].sum()), float(inside.sum())])
    differs = tuple((m, float(c[0] / c[1])) for m, c in zip(tried, counts, strict=True) if c[1])
    if not (varied and differs):
        return None
    trim, enough = _smallest(differs)
    return Margins(trim, _feather(trim, unit, side, enough), differs, enough)


def _tried(card: ModelCard, unit: int, side: int) -> list[int]:
    """Margins to try: what they leave of the card's window to a step is a multiple of the unit."""
    if unit == 1:
        return _fine(side // 4)
    first = card.window.size % unit
    return list(range(first, max(first, side // 4) + 1, unit))


def _fine(most: int) -> list[int]:
    """Margins to try where every number of pixels is allowed: each at first, coarser later."""
    return sorted({*range(min(16, most)), *range(16, most + 1, 4)})


def _probe_side(card: ModelCard, unit: int) -> int:
    """The card's window, or the largest multiple that is quick enough."""
    if card.window.fixed or card.window.size <= _LARGEST_PROBE:
        return card.window.size
    step = math.lcm(unit, card.window.multiple)
    return max(step, _LARGEST_PROBE // step * step)


def _smallest(differs: tuple[tuple[int, float], ...]) -> tuple[int, bool]:
    """The margin to take, and whether it is wide enough.

    Whether the share still falls is asked of a margin twice as wide, and at least 8 px wider: from one pixel
    to the next it always falls a little.
    """
    for margin, share in differs:
        if share <= ENOUGH:
            return margin, True
        wider = [s for m, s in differs if m >= max(2 * margin, margin + 8)]
        if wider and wider[0] > _STILL_FALLING * share:
            return margin, False
    return differs[-1][0], False


def _feather(trim: int, unit: int, side: int, enough: bool) -> int:
    """Short where the trim took away what differs, an eighth of the window where it could not.

    With the trim it is a multiple of the unit, so that the distance of windows is; a pointwise network has no
    seams to hide.
    """
    if enough and trim == 0:
        return 0
    wanted = max(2, trim // 4) if enough else side // 8
    return -(-(trim + wanted) // unit) * unit - trim


def _compare(
    network: Callable[..., Tensor], card: ModelCard, side: int, shift: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Classes of the overlap in either of two shifted windows, and how deep inside both each pixel lies.

    Returns:
        Three times (y, x) int64, output pixels of the overlap.
    """
    textures = _textures(card, side + shift, seed)
    first, second = (
        network(*(t[..., at // g.ratio :, at // g.ratio :][..., : side // g.ratio, : side // g.ratio].clone()
                  for t, g in zip(textures, card.groups, strict=True)))
        for at in (0, shift)
    )  # fmt: skip
    scale = int(card.output_scale)
    moved, overlap = shift * scale, (side - shift) * scale
    a = first[0, :, moved:, moved:].argmax(0)
    b = second[0, :, :overlap, :overlap].argmax(0)
    # Depth in the overlap: its upper left edge is that of the second window, its lower right of the first.
    line = torch.arange(overlap)
    depth_1d = torch.minimum(line, overlap - 1 - line)
    return a, b, torch.minimum(depth_1d[:, None], depth_1d[None, :])


def _textures(card: ModelCard, side: int, seed: int) -> list[Tensor]:
    """Smooth random digital numbers, (1, band, y, x) a group: what neighbours share, at several scales."""
    coarsest = max(group.ratio for group in card.groups)
    side = -(-side // coarsest) * coarsest
    eight_bit = all("uint8" in group.dtypes for group in card.groups)
    found = []
    for noise in probe_windows(card, side, eight_bit=eight_bit, count=1, seed=seed):
        fine = noise.float()
        low, high = float(fine.min()), float(fine.max())
        mixed = fine - fine.mean()
        for cell in (4, 16, 64):
            small = F.avg_pool2d(fine, cell, ceil_mode=True) if min(fine.shape[2:]) >= cell else fine
            large = F.interpolate(small, size=fine.shape[2:], mode="bilinear", align_corners=False)
            mixed = mixed / 2 + (large - large.mean()) * cell
        stretched = (mixed / mixed.abs().max() / 2 + 0.5) * (high - low) + low
        found.append(stretched.to(noise.dtype))
    return found
