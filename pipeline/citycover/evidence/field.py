"""The labels' evidence at every pixel, and what it makes of the network's probabilities. On the device.

    score_k = strength_k log(P_k / prior_k) + log(q_k + 1e-5),   q_k = (1 - noise) S_k + noise * share_k

S is the one-hot of the labels at pixel centres: cells of all sheets within reach vote with their weights, and
what has no label does not vote. Where no label is within reach the network decides alone: P stays as it is.
Of a class that training never had, or that the network cannot tell apart, it has nothing to say: strength_k
is 0, and what speaks for or against the known classes around it is said of that class too, so that it keeps
the share that the labels give it. Probabilities are the softmax of `sharpness` times the scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from odc.geo.geobox import GeoBox
from torch import Tensor

from citycover.evidence.cells import CellReader, Sheet
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.place import LATTICE
from citycover.evidence.placed import Mix, PlacedSheet
from citycover.evidence.rule import PARTS
from citycover.geometry.window import Window

_FLOOR = 1e-5
"""Share that a class without any label nearby still has."""

_LEAST_TRUST = 1e-9
"""Of labels that are all noise: what they say is divided by it."""

LABELLED = 1e-3
"""Weight of labelled cells above which a pixel has labels within reach."""

_AT_ONCE = 3 << 17
"""Numbers that a processor works on at once: what is made of them on the way stays in its caches."""


class LabelField:
    """The labels around an output grid, window by window; never holds more of them than a window sees."""

    def __init__(
        self,
        labels: LabelEvidence,
        grid: GeoBox,
        device: torch.device,
        reader: Callable[[Sheet], CellReader] = CellReader,
    ) -> None:
        """Open the sheets.

        Args:
            labels: what to believe.
            grid: of the output; windows are pixels of it.
            device: of the probabilities.
            reader: opens a sheet.
        """
        self.labels, self.device = labels, device
        grid = labels.seen_from(grid)
        self._sheets = [
            PlacedSheet(reader(sheet), grid, len(labels.prior), labels.rule.sigma, device)
            for sheet in labels.sheets
        ]
        column = (len(labels.prior), 1, 1)
        # Rounded in favour of the labels: what a network can tell apart must be nearly sure.
        self._powers = _runs([math.floor(strength * PARTS) for strength in labels.strengths])
        doubts = ((k, math.ceil((1 - known) * PARTS)) for k, known in enumerate(labels.known))
        self._doubts = [(k, parts) for k, parts in doubts if parts]
        self._sharpness = round(labels.rule.sharpness * PARTS)
        self._trust = max(_LEAST_TRUST, 1 - labels.rule.noise)
        self._shares = torch.tensor(labels.shares, device=device).view(column)
        self._nothing = (self._shares * labels.rule.noise + _FLOOR) / self._trust
        per_prior = torch.ones(column)
        for classes, exponent in self._powers:
            prior = torch.tensor(labels.prior[classes]).view(-1, 1, 1)
            per_prior[classes] = _power(1 / prior, exponent)
        self._per_prior = per_prior.to(device)
        self._known = torch.tensor(labels.known, device=device).view(column)

    def smoothed(self, window: Window) -> Tensor:
        """(c, y, x) weights of the labels' classes at pixel centres; all 0 where there is no label."""
        smoothed = torch.empty(len(self.labels.prior), window.height, window.width, device=self.device)
        for tile, planes in self._said(window, None):
            smoothed[:, *tile.shift(-window.row, -window.col).slices] = planes[:-1]
        return smoothed

    def __call__(self, probabilities: Tensor, window: Window) -> Tensor:
        """Put the labels' evidence to the network's, in place.

        Args:
            probabilities: (c, y, x) float32, blended.
            window: the pixels of output that they are of.

        Returns:
            What was given.
        """
        for tile, planes in self._said(window, self._mix):
            self._weigh(probabilities[:, *tile.shift(-window.row, -window.col).slices], planes)
        return probabilities

    def _mix(self, planes: Tensor) -> None:
        """Make of planes `q_k / prior_k ** strength_k`, but for a factor that all classes have, in place.

        It is a sum of what is there, so it is as good at points, which are fewer, as at pixels.
        """
        planes[:-1].add_(planes[-1] * self._nothing).mul_(self._per_prior)

    def _said(self, window: Window, mix: Mix | None) -> Iterator[tuple[Window, Tensor]]:
        """Tiles of a window, and the sum of what sheets say there; see `PlacedSheet.over`.

        What a processor makes of a tile stays in its caches.
        """
        side = min((sheet.side for sheet in self._sheets), default=math.inf)
        pixels = _AT_ONCE / (len(self.labels.prior) + 1) if self.device.type == "cpu" else math.inf
        for part in _parts(window, side, min(side, pixels / LATTICE)):
            found = [sheet.over(part, mix) for sheet in self._sheets]
            for tile in _strips(part, pixels / part.width):
                yield tile, self._added([planes(tile) for planes in found if planes is not None], tile)

    def _added(self, planes: list[Tensor], tile: Window) -> Tensor:
        """(c + 1, y, x) sum of the planes of sheets."""
        if not planes:
            return torch.zeros(len(self.labels.prior) + 1, tile.height, tile.width, device=self.device)
        for more in planes[1:]:
            planes[0] += more
        return planes[0]

    def _weigh(self, probabilities: Tensor, planes: Tensor, lost: Tensor | None = None) -> None:
        """Make (c, y, x) probabilities the posterior, in the light of the labels' planes, which are used up.

        Of trust that the labels `lost`, (y, x) 0 to 1, it is as if that share of them were noise as well.

        Every number is made of operations that round alike wherever a pixel lies in a tensor: of no fused
        ones, and of no sum whose order is left open.
        """
        q, labelled = planes[:-1], planes[-1]
        if lost is not None:
            q.mul_(1 - lost).add_((labelled * lost) * ((self._shares + self._nothing) * self._per_prior))
        if self._doubts:
            floor = labelled * (_FLOOR / self._trust)
            known = _total_of(q * (self._known / self._per_prior)).add_(floor)
        for classes, exponent in self._powers:
            if exponent:
                q[classes].mul_(_power(probabilities[classes], exponent))
        if self._doubts:
            self._spare_unknown(q, known, floor)
        if self._sharpness != PARTS:
            q = _power(q, self._sharpness, used_up=True)
        # Pixels without any vote are nodata; they must not become NaN on the way there.
        total = _part_of_all(q)
        if self.device.type == "cpu" and float(labelled.amin()) > LABELLED:  # a GPU would be waited for
            torch.mul(q, total, out=probabilities)
        else:
            torch.where(labelled > LABELLED, q.mul_(total), probabilities, out=probabilities)

    def _spare_unknown(self, q: Tensor, known: Tensor, floor: Tensor) -> None:
        """Put to classes, as far as the network does not know them, the mean of what it says of the others.

        Else each word for a known class would be one against an unknown one.

        Args:
            q: (c, y, x) what labels and network say; changed in place.
            known: (y, x) share of known classes by the labels alone.
            floor: (y, x) what no share is below.
        """
        mean = _total_of(q * self._known).add_(floor).div_(known)
        for k, parts in self._doubts:
            q[k].mul_(_power(mean, parts))


def _parts(window: Window, height: float, width: float) -> Iterator[Window]:
    """A window in parts of about equal size, each about `height` and `width` at most."""
    height, width = _even(window.height, height), _even(window.width, width)
    for row in range(window.row, window.row_end, height):
        for col in range(window.col, window.col_end, width):
            yield Window(row, col, min(height, window.row_end - row), min(width, window.col_end - col))


def _strips(part: Window, rows: float) -> Iterator[Window]:
    """So many rows of a part at once, or all; from node to node of the lattice: these have one slope.

    >>> [strip.row for strip in _strips(Window(20, 0, 100, 9), 70)]
    [20, 64]
    """
    if rows >= part.height:
        yield part
        return
    step = LATTICE * max(1, int(rows / LATTICE))
    for row in range(part.row // step * step, part.row_end, step):
        first = max(row, part.row)
        yield Window(first, part.col, min(row + step, part.row_end) - first, part.width)


def _even(length: int, most: float) -> int:
    """Length of parts of about equal length, each about `most` at most.

    >>> _even(100, 40), _even(100, 1000)
    (34, 100)
    """
    return math.ceil(length / math.ceil(length / max(1, min(length, most))))


def _runs(exponents: list[int]) -> list[tuple[slice, int]]:
    """Neighbouring classes of one exponent together.

    >>> _runs([32, 32, 0])
    [(slice(0, 2, None), 32), (slice(2, 3, None), 0)]
    """
    runs, first = [], 0
    for exponent, group in itertools.groupby(exponents):
        count = len(list(group))
        runs.append((slice(first, first + count), exponent))
        first += count
    return runs


def _power(base: Tensor, parts: int, used_up: bool = False) -> Tensor:
    """(...) `base ** (parts / PARTS)`; parts below 2 PARTS.

    One square root for each binary digit: the same to the last bit on every device and in tiles of any size.
    A base that is used up is some number afterwards.
    """
    if parts == 0:
        return torch.ones_like(base)
    power, root, place = base if parts & PARTS else None, base, PARTS
    while parts % place or power is None:
        place //= 2
        root = root.sqrt() if root is base or root is power else root.sqrt_()
        if parts & place:
            if power is None:
                power = root
            elif parts % place == 0:  # the last one
                power = root.mul_(power)
            else:
                power = power.mul_(root) if used_up or power is not base else power * root
    return power


def _total_of(planes: Tensor) -> Tensor:
    """(c, y, x) -> (y, x) sum, always in the order of the classes."""
    first, *others = planes.unbind(0)
    total = first + others[0] if others else first.clone()
    for plane in others[1:]:
        total += plane
    return total


def _part_of_all(planes: Tensor) -> Tensor:
    """(y, x) what (c, y, x) planes are multiplied by to sum to one."""
    return _total_of(planes).clamp_(min=torch.finfo(torch.float32).tiny).reciprocal_()
