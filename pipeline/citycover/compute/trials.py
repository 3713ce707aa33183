"""Windows of the scene in question, run to see how fast they go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from citycover.engine.strips import StripSource
from citycover.machine.memory import peak_rss
from citycover.model.card import ModelCard
from citycover.model.checks import probe_windows
from citycover.model.converted import Shapes
from citycover.model.predictor import Predictor
from citycover.plan.axis import coarse_axis
from citycover.plan.plan import Plan
from citycover.read.reader import Reader
from citycover.scene.scene import Scene

PROBE_SHARE = 0.02
"""Most of a run that choosing its window may cost."""

MOST_REPEATS = 3


def sample_windows(
    plan: Plan, card: ModelCard, open_readers: Callable[[], Sequence[Reader]], pixels: int
) -> list[list[Tensor]]:
    """Real windows from all over the scene, as a predictor takes them, one at a time.

    Args:
        plan: which windows there are.
        card: band groups.
        open_readers: one reader a band group, date by date.
        pixels: input pixels wanted at least, as far as the scene has so many.
    """
    wanted = max(1, -(-pixels // plan.window_pixels))
    rows = sorted({round(k * (plan.y.count - 1) / 4) for k in (2, 0, 4, 1, 3)})
    per_row = -(-wanted // len(rows))
    spread = max(1, plan.x.count // per_row)
    found: list[list[Tensor]] = []
    readers = open_readers()
    try:
        for row in rows:
            for column in range(spread // 2, plan.x.count, spread):
                window = _read_window(plan, card, readers, row, column)
                if window is not None and len(found) < wanted:
                    found.append(window)
    finally:
        for reader in readers:
            reader.close()
    return found


def _read_window(
    plan: Plan, card: ModelCard, readers: Sequence[Reader], row: int, column: int
) -> list[Tensor] | None:
    """One (1, band, y, x) tensor a band group, of the latest date that has a valid pixel; None: none."""
    for first in range(0, len(readers), len(card.groups)):
        window = _read_date(plan, card, readers[first : first + len(card.groups)], row, column)
        if window is not None:
            return window
    return None


def _read_date(
    plan: Plan, card: ModelCard, readers: Sequence[Reader], row: int, column: int
) -> list[Tensor] | None:
    tensors, any_valid = [], False
    for group, reader in zip(card.groups, readers, strict=True):
        y, x = coarse_axis(plan.y, group.ratio), coarse_axis(plan.x, group.ratio)
        origin = (plan.origin[0] // group.ratio, plan.origin[1] // group.ratio)
        source = StripSource(reader, y, x, range(column, column + 1), origin, group.fills)
        strip = next(source.strips(row))
        any_valid |= bool(strip.valid.any())
        tensor = torch.from_numpy(strip.values.copy()).permute(2, 0, 1)[None]
        tensors.append(tensor if tensor.dtype == torch.uint8 else tensor.to(torch.float32))
    return tensors if any_valid else None


def batch_shapes(plan: Plan, card: ModelCard, scene: Scene) -> Shapes:
    """Shape and type of the batches of a run, of each band group, as rows of windows are cut."""
    return tuple(
        (
            (plan.batch, len(group.bands), plan.y.window // group.ratio, plan.x.window // group.ratio),
            "uint8" if source.dtype == "uint8" else "float32",
        )
        for group, source in zip(card.groups, scene.groups, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Speed:
    """What a short probe of the network measured."""

    seconds_per_window: float
    activation_bytes: int
    """Memory that one batch needs beyond what was held before, as far as the process grew."""

    def seconds(self, plan: Plan) -> float:
        """Estimated wall time of the whole plan; the forward pass is most of it."""
        return 1.15 * self.seconds_per_window * plan.windows


def measure_speed(plan: Plan, predictor: Predictor, repeats: int = 2) -> Speed:
    """Run the network on random windows; the least time counts, for what else the machine does only adds."""
    side = (plan.y.window, plan.x.window)
    windows = probe_windows(predictor.card, side, predictor.device, eight_bit=True, count=plan.batch)
    before = peak_rss()
    predictor(windows)
    held = peak_rss() - before
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        predictor(windows).sum().item()  # waits for the device
        times.append(time.perf_counter() - begin)
    return Speed(min(times) / plan.batch, held)
