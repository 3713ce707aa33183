"""From a scene, a card and what was asked for to a plan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from odc.geo.geobox import GeoBox

from citycover.errors import PlanError
from citycover.geometry.positions import KNOTS
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.model.precision import Precision
from citycover.plan.axis import Axis
from citycover.plan.plan import CHUNK, Plan
from citycover.scene.scene import Scene

MAX_BLOCK_WIDTH = 8192
"""Output pixels; the width that bounds the memory of a sweep."""

MAX_BLOCK_HEIGHT = 2048
"""Output pixels; what is lost at most when a run dies, times the width."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user fixed; None leaves the choice to the planner."""

    window: int | None = None
    trim: int | None = None
    feather: int | None = None
    block: tuple[int, int] | None = None
    """(y, x) most output pixels of a block; multiples of CHUNK where blocks are stored."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the axes of a plan must obey."""

    largest: int
    """Longest window wanted."""
    fixed: bool
    multiple: int
    step_multiple: int
    trim: int
    feather: int

    @property
    def margins(self) -> int:
        return 2 * self.trim + self.feather

    def allowed(self) -> range:
        """Steps whose windows the card allows, in rising order, up to the longest window."""
        least = _round_up(max(self.feather, 1), self.step_multiple)
        longest, period = self.largest - self.margins, math.lcm(self.step_multiple, self.multiple)
        starts = range(least, least + period, self.step_multiple)
        first = next((s for s in starts if (s + self.margins) % self.multiple == 0), longest + 1)
        found = range(first, longest + 1, period)
        return found if not self.fixed else found[-1:] if longest in found else range(0)

    def fit(self, size: int) -> int:
        """The step with the fewest pixels to compute: the windows that the longest one needs, made equal."""
        if not (allowed := self.allowed()):
            raise PlanError(self.no_window())
        least = math.ceil(size / math.ceil(size / allowed[-1]))
        return allowed[max(0, math.ceil((least - allowed.start) / allowed.step))]

    def divide(self, size: int) -> int:
        """The longest step that cuts a tile into whole cells: those of its neighbours go on from them."""
        if not (allowed := self.allowed()):
            raise PlanError(self.no_window())
        if fitting := [s for s in allowed if size % s == 0]:
            return fitting[-1]
        step = allowed[-1]
        near = [n for n in (size // step * step, _round_up(size, step)) if n]
        raise PlanError(
            f"a tile of {size} px is no whole number of steps of windows; the nearest that fit are "
            f"{' and '.join(map(str, near))} px; give one of them as tile, or another window"
        )

    def no_window(self) -> str:
        """What is to be said where no step is allowed."""
        return (
            f"window {self.largest} with trim {self.trim} and feather {self.feather} leaves no step that "
            f"is a multiple of {self.step_multiple} and at least the feather; a window is a multiple of "
            f"{self.multiple}; give a larger --window or a smaller --trim or --feather"
        )


def make_plan(
    scene: Scene,
    card: ModelCard,
    options: PlanOptions,
    part: Window | None = None,
    *,
    batch: int,
    precision: Precision,
    tiled: bool = False,
) -> Plan:
    """Fit windows and blocks to a scene.

    Args:
        scene: its shapes are used, no pixel is read.
        card: window rule, stride, trim, feather, output scale.
        options: what the user fixed.
        part: input pixels to map; None for all. It is grown outward to whole pixels of every band group.
        batch: windows that go through the network together; where a row has fewer, those of a row, for empty
            slots are computed, too.
        precision: the network's.
        tiled: the part is a tile, and its windows are those of a whole that goes on around it.

    Raises:
        PlanError: window, trim or feather contradict each other or the card.
    """
    rule = _rule(card, options)
    unit = math.lcm(*(group.ratio for group in card.groups), card.output_scale.denominator)
    area = _snap(part, unit, scene.shape) if part else Window(0, 0, *scene.shape)
    step = rule.divide if tiled else rule.fit
    y = Axis(area.height, step(area.height), rule.trim, rule.feather, tiled)
    x = Axis(area.width, step(area.width), rule.trim, rule.feather, tiled)
    grid = _output_grid(scene.grid, area, card.output_scale)
    limits = options.block or (MAX_BLOCK_HEIGHT, MAX_BLOCK_WIDTH)
    return Plan(
        grid=grid,
        origin=(area.row, area.col),
        y=y,
        x=x,
        scale=card.output_scale,
        block_shape=(_block_side(grid.shape[0], limits[0]), _block_side(grid.shape[1], limits[1])),
        batch=min(batch, x.count),
        precision=precision,
    )


def check_windows(card: ModelCard, options: PlanOptions) -> None:
    """Refuse windows that no scene can be mapped in.

    Raises:
        PlanError: window, trim or feather contradict each other or the card.
    """
    if not (rule := _rule(card, options)).allowed():
        raise PlanError(rule.no_window())


def tile_reach(size: int, card: ModelCard, options: PlanOptions) -> tuple[int, int]:
    """How far the windows of a tile look: input pixels before its first one, and past its last one.

    Both are whole pixels of every band group, and whole intervals of knots: see `geometry/positions.py`.

    Raises:
        PlanError: no window fits the tile.
    """
    rule = _rule(card, options)
    unit = math.lcm(*(group.ratio for group in card.groups), card.output_scale.denominator, KNOTS)
    return _round_up(rule.trim + rule.feather, unit), _round_up(rule.divide(size) + rule.trim, unit)


def _rule(card: ModelCard, options: PlanOptions) -> _Rule:
    """Combine card and options; refuse what breaks the card, with the nearest that fits."""
    trim = card.trim if options.trim is None else options.trim
    feather = card.feather if options.feather is None else options.feather
    unit = math.lcm(card.stride, *(g.ratio for g in card.groups), card.output_scale.denominator)
    apart = math.lcm(card.output_scale.denominator, *(g.ratio for g in card.groups))
    if (trim + feather) % unit or trim % apart:
        near = max(unit, unit * round((trim + feather) / unit))
        fits = min(feather // apart * apart, near)
        raise PlanError(
            f"trim {trim} + feather {feather} = {trim + feather} is not a multiple of {unit}, the stride of "
            f"model {card.name!r}; the nearest that fits is --trim {near - fits} --feather {fits}"
        )
    size = options.window or card.window.size
    if why := card.window.why_not(size):
        raise PlanError(f"model {card.name!r} {why}")
    step_unit = math.lcm(unit, card.output_scale.denominator)
    return _Rule(size, card.window.fixed, card.window.multiple, step_unit, trim, feather)


def _block_side(size: int, most: int) -> int:
    """Side of equal blocks, at most `most` long.

    One block is as long as its whole chunks. Several are whole chunks in their second overview, too: so far
    each makes its own (`store/levels.py`).
    """
    count = math.ceil(size / most)
    return min(most, _round_up(math.ceil(size / count), CHUNK if count == 1 else 4 * CHUNK))


def _output_grid(grid: GeoBox, area: Window, scale: Fraction) -> GeoBox:
    """Grid of the output: same origin as the mapped area, pixels 1 / scale as large."""
    height, width = (math.ceil(n * scale) for n in (area.height, area.width))
    transform = grid.transform * grid.transform.translation(area.col, area.row)
    if scale != 1:
        transform = transform * grid.transform.scale(float(1 / scale))
    return GeoBox((height, width), transform, grid.crs)


def _snap(part: Window, unit: int, shape: tuple[int, int]) -> Window:
    """Grow a part outward to whole units and clip it to the scene."""
    row, col = part.row // unit * unit, part.col // unit * unit
    row_end, col_end = _round_up(part.row_end, unit), _round_up(part.col_end, unit)
    area = Window(row, col, row_end - row, col_end - col).clip(Window(0, 0, *shape))
    if area is None:
        raise PlanError("the part to map does not overlap the scene; check --bbox or --aoi and their CRS")
    return area


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
