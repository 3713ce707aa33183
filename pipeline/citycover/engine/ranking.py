"""Classes of each pixel in the order of their probability, and what layers say of it.

The number of a class is packed into the low bits of its probability's float32 pattern, which orders like the
number itself because probabilities are not negative. So one integer maximum gives class and probability, no
two classes of a pixel are equal, and what is packed is still the probability, to within 2**(b - 23) of it, b
the bits of a class number: nothing is copied, however many layers are made.

Every number is made of single operations on whole planes, rounded as IEEE 754 says, and of tables: it is the
same on every device, and whatever the shape of the piece that is looked at.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from citycover.model.entropy import entropy

_HALF = 0x3F000000
"""Pattern of 0.5."""

_TOTAL = 255
"""What the shares of the classes in a pixel sum to."""

_MOST = 254
"""Largest number of a layer whose nodata is 255."""


class Ranker:
    """Ranks classes by their probability."""

    def __init__(self, ids: NDArray[np.uint8], device: torch.device, exclusive: bool = True) -> None:
        """Prepare for the classes of a map.

        Args:
            ids: (class,) what each class is called in the map; at most 256.
            device: of the probabilities.
            exclusive: a pixel is of one class, and probabilities sum to one; else of any number of them.
        """
        channels = len(ids)
        self.exclusive = exclusive
        self.mask = (1 << max(1, (channels - 1).bit_length())) - 1
        # Reversed, so that the first of equals has the largest key.
        self.codes = torch.arange(channels, dtype=torch.int32, device=device).neg_().add_(self.mask)
        table = np.zeros(self.mask + 1, np.uint8)
        table[self.mask - np.arange(channels)] = ids
        self.ids = torch.from_numpy(table).to(device)  # (code,)
        counted = np.array_equal(ids, np.arange(channels) + ids[0])
        self.last = int(ids[0]) + self.mask if counted else None
        """What code 0 would be called where classes are numbered one after the other."""

    def __call__(
        self, probabilities: Tensor, lost: Tensor | None = None, apart: Tensor | None = None
    ) -> Ranking:
        """Rank the classes of each pixel.

        Probabilities closer than 2**(b - 23) count as equal, and of equals the first class wins.

        Args:
            probabilities: (class, y, x) float32, at least 0. Taken over by the ranking.
            lost: (y, x) trust that labels lost, 0 to 1; -1 without a label; None: nobody looked.
            apart: (y, x) disagreement of networks, 0 to 1; None: it was not asked for.
        """
        keys = probabilities.view(torch.int32)  # (class, y, x)
        keys.bitwise_and_(~self.mask).bitwise_or_(self.codes[:, None, None])
        return Ranking(self, keys, lost, apart)


class Ranking:
    """The classes of each pixel, ranked; what is not asked for is not computed."""

    def __init__(
        self, ranker: Ranker, keys: Tensor, lost: Tensor | None = None, apart: Tensor | None = None
    ) -> None:
        """`keys`: (class, y, x) int32 patterns of probabilities with the number of the class in them."""
        self.ranker, self.keys, self.lost, self.apart = ranker, keys, lost, apart

    @cached_property
    def _first(self) -> Tensor:
        """(y, x) key of the best class."""
        return self.keys.amax(0)

    @cached_property
    def _second(self) -> Tensor:
        """(y, x) key of the class after the best one."""
        best, second = self.keys[0].clone(), torch.zeros_like(self.keys[0])
        for key in self.keys[1:].unbind(0):
            torch.maximum(second, torch.minimum(best, key), out=second)
            torch.maximum(best, key, out=best)
        return second

    def _named(self, keys: Tensor) -> Tensor:
        """(y, x) ids of the classes in (y, x) keys."""
        codes = keys & self.ranker.mask
        if self.ranker.last is not None:
            return (self.ranker.last - codes).to(torch.uint8)
        return self.ranker.ids.index_select(0, codes.flatten()).view(codes.shape)

    @property
    def classes(self) -> Tensor:
        """(y, x) uint8 ids of the best class."""
        return self._named(self._first)

    @property
    def second(self) -> Tensor:
        """(y, x) uint8 ids of the class after the best one."""
        return self._named(self._second)

    @property
    def confidence(self) -> Tensor:
        """(y, x) uint8 probability of the best class, round(255 p), at least 1."""
        # Rounding to even, as numpy does: the same on every device.
        return (self._first.view(torch.float32) * _TOTAL).round_().clamp_(1, _TOTAL).to(torch.uint8)

    @cached_property
    def _lead(self) -> Tensor:
        """(y, x) probability of the best class less that of the second."""
        return self._first.view(torch.float32) - self._second.view(torch.float32)

    @property
    def margin(self) -> Tensor:
        """(y, x) uint8 lead of the best class over the second, round(254 (p1 - p2))."""
        return _in_steps(self._lead)

    @property
    def change(self) -> Tensor:
        """(y, x) uint8 trust that labels lost, round(254 lost); 255 where there is no label."""
        assert self.lost is not None, "the layer is made only where somebody looked"
        return _in_steps(self.lost).masked_fill_(self.lost < 0, _TOTAL)

    @property
    def disagreement(self) -> Tensor:
        """(y, x) uint8 disagreement of networks, round(254 d)."""
        assert self.apart is not None, "the layer is made only where it was asked for"
        return _in_steps(self.apart)

    @property
    def entropy(self) -> Tensor:
        """(y, x) uint8 entropy, round(254 h): 0 where one class is certain, 254 where all are alike.

        Where a pixel may be of several classes, it is the mean of each class's own.
        """
        return _in_steps(entropy(self.keys.unbind(0), self.ranker.exclusive))

    @property
    def present(self) -> Tensor:
        """(class, y, x) uint8: 1 where a class has a probability of a half or more, else 0."""
        return (self.keys >= _HALF).to(torch.uint8)

    @property
    def probabilities(self) -> Tensor:
        """(class, y, x) uint8 of which no one is 255, in steps of 1/255.

        Where a pixel is of one class they sum to 255, and the first of the largest is the best class; each is
        less than 3 from the exact number. Where it may be of several they are round(255 p).
        """
        exact = self.keys.view(torch.float32)
        if not self.ranker.exclusive:
            return (exact * _TOTAL).round_().clamp_(0, _MOST).to(torch.uint8)
        total = torch.zeros_like(exact[0])
        for probability in exact.unbind(0):  # torch's own sum has no fixed order
            total += probability
        scale = _TOTAL / total.clamp_min_(1e-30)  # (y, x)
        shares = self._shares(exact, scale)
        self._put_in_order(shares, scale)
        # 255 is nodata: a class that is certain leaves one step to the second.
        full = shares.amax(0) == _TOTAL
        second = self.ranker.mask - (self._second & self.ranker.mask)
        return shares.clamp_(max=_MOST).scatter_add_(0, second.long()[None], full.to(torch.uint8)[None])

    @staticmethod
    def _shares(exact: Tensor, scale: Tensor) -> Tensor:
        """(class, y, x) uint8 that sum to 255: differences of the rounded running sum, each within 1."""
        shares = torch.empty(exact.shape, dtype=torch.uint8, device=exact.device)
        total, part = torch.zeros_like(scale), torch.empty_like(scale)
        before = torch.zeros(scale.shape, dtype=torch.uint8, device=exact.device)
        for share, probability in zip(shares[:-1].unbind(0), exact[:-1].unbind(0), strict=True):
            total += torch.mul(probability, scale, out=part)
            now = torch.add(total, 0.5, out=part).to(torch.uint8)  # halves upward: even would add error
            torch.sub(now, before, out=share)
            before = now
        torch.sub(_TOTAL, before, out=shares[-1])
        return shares

    def _put_in_order(self, shares: Tensor, scale: Tensor) -> None:
        """Give the best class the first of the largest shares, where rounding left them in another order."""
        flat = shares.flatten(1)  # (class, pixel), a view
        near = torch.nonzero((self._lead * scale < 2.01).flatten())[:, 0]
        close = flat.index_select(1, near)
        best = self.ranker.mask - (self._first.flatten().index_select(0, near) & self.ranker.mask)
        wrong = torch.nonzero(_first_of_largest(close) != best)[:, 0]
        if len(wrong):
            settled = _in_order(close.index_select(1, wrong), best.index_select(0, wrong))
            flat.index_copy_(1, near.index_select(0, wrong), settled)


def _first_of_largest(shares: Tensor) -> Tensor:
    """(pixel,) number of the first of the largest shares (class, pixel)."""
    last = len(shares) - 1
    best = torch.zeros(shares.shape[1:], dtype=torch.int32, device=shares.device)
    for number, share in enumerate(shares.unbind(0)):
        torch.maximum(best, share.to(torch.int32).mul_(256).add_(last - number), out=best)
    return last - (best & 255)


def _in_order(shares: Tensor, best: Tensor) -> Tensor:
    """(class, pixel) uint8 shares of which the first of the largest is the best class, with the same sum."""
    close, place = shares.to(torch.int16), best.long()[None]
    number = torch.arange(len(close), device=close.device)[:, None]
    # Twice the share, and one more for those before the best: they must have less than it has.
    earlier = (number < place).to(torch.int16)
    for _ in range(3):  # each is less than 1 off, so at most two steps are lacking; one for float32
        claims = (2 * close + earlier).scatter_(0, place, -1)
        claim, rival = claims.max(0, keepdim=True)
        step = (claim > 2 * close.gather(0, place)).to(torch.int16)
        close.scatter_add_(0, place, step).scatter_add_(0, rival, -step)
    return close.to(torch.uint8)


def _in_steps(shares: Tensor) -> Tensor:
    """uint8 of shares 0 to 1 in steps of 1/254; 255 is left for nodata."""
    return (shares * _MOST).round_().clamp_(0, _MOST).to(torch.uint8)
