"""What is known about each preset before it runs: parameters, operations, receptive field.

Counting takes seconds a network, so the counts ship as `facts.json`, written by
`python -m citycover_models.catalogue.document` and held to the networks by a test. Reading them needs no
torch.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from citycover.model.card import ModelCard
    from citycover_models.catalogue.preset import Preset

FILE = Path(__file__).with_name("facts.json")


@dataclass(frozen=True, slots=True)
class Facts:
    """One row of the list of networks."""

    name: str
    network: str
    """Module of `citycover_models.nets`."""
    parameters: int
    gflop_per_mpx: float
    """10^9 floating point operations per 10^6 input pixels; a multiplication with its addition counts two."""
    bands: tuple[str, ...]
    window: int
    """Side that the card asks for, input pixels."""
    fixed_window: bool
    multiple: int
    """Windows are multiples of this."""
    output_scale: str
    """Output pixels per input pixel: 1, 5, 1/60."""
    task: str
    receptive_field: int | None
    """Side in input pixels of what one output pixel sees; None: it reaches the whole window."""
    trim: int
    feather: int
    paper: str
    licence_note: str
    mpx_per_s: float
    """10^6 input pixels a second through the eager network in fp32, on the machine of `docs/models.md`."""


def read_facts() -> tuple[Facts, ...]:
    """The facts that ship with the package, in the order of the registry."""
    rows: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Facts(**row | {"bands": tuple(row["bands"])}) for row in rows)


def trained_facts() -> tuple[Facts, ...]:
    """The same for the built-in models that were trained: `urban.py` says on what."""
    base = next(row for row in read_facts() if row.name == "l2hnet-tiny")
    names = ("red", "green", "blue", "nir")
    four = base.parameters - (16 - 5) * (16 + 1)  # five classes instead of sixteen, from 16 channels
    return (
        replace(base, name="urban-rgbn-1m", bands=names, parameters=four),
        replace(base, name="urban-rgb-1m", bands=names[:3], parameters=four - 3 * 3 * 16),
    )


def write_facts(rows: tuple[Facts, ...]) -> None:
    """Replace the facts that ship with the package."""
    text = json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")


def facts_of(preset: Preset) -> Facts:
    """Count and measure a preset."""
    import torch

    card = preset.card()
    with torch.device("meta"):
        module = preset.build().eval()
    return Facts(
        name=preset.name,
        network=preset.network,
        parameters=sum(p.numel() for p in module.parameters()),
        gflop_per_mpx=round(gflop_per_mpx(module, card), 2),
        bands=tuple(name for group in card.groups for name in group.names),
        window=card.window.size,
        fixed_window=card.window.fixed,
        multiple=card.window.multiple,
        output_scale=str(card.output_scale),
        task=card.task,
        receptive_field=receptive_field(preset),
        trim=card.trim,
        feather=card.feather,
        paper=preset.paper,
        licence_note=preset.licence_note,
        mpx_per_s=float(f"{measure_speed(preset):.3g}"),
    )


def measure_speed(preset: Preset, seconds: float = 1.0) -> float:
    """10^6 input pixels a second through the eager network, one window at a time, the first not counted."""
    import torch

    from citycover.model.checks import probe_windows

    torch.manual_seed(0)
    module, card = preset.build().eval(), preset.card()
    eight_bit = all("uint8" in group.dtypes for group in card.groups)
    windows = probe_windows(card, card.window.size, eight_bit=eight_bit, count=1)
    with torch.inference_mode():
        module(*windows)
        begin, turns = time.perf_counter(), 0
        while turns < 2 or time.perf_counter() - begin < seconds:
            module(*windows)
            turns += 1
    return turns * card.window.size**2 / 1e6 / (time.perf_counter() - begin)


def gflop_per_mpx(module: nn.Module, card: ModelCard) -> float:
    """Operations of convolutions and matrix products; `module` lies on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*meta_windows(card))
    return float(counter.get_total_flops()) / card.window.size**2 / 1e3


def meta_windows(card: ModelCard) -> list[Tensor]:
    """One (1, band, y, x) window of the card's own size a band group, without memory."""
    import torch

    side = card.window.size
    return [
        torch.empty(1, len(g.bands), side // g.ratio, side // g.ratio, device="meta") for g in card.groups
    ]


def receptive_field(preset: Preset, turns: int = 2) -> int | None:
    """Side of the square of finest-group pixels that change the scores of the window's centre.

    Measured, not derived: gradients of random weights on random windows, joined over `turns` of them. What
    every turn misses by chance (a dead rectifier at the very edge) makes it a pixel or two too small.

    Returns:
        None where it reaches an edge of the window.
    """
    import torch

    from citycover.model.checks import probe_windows

    card = preset.card()
    side = card.window.size
    reach = 0
    for turn in range(turns):
        torch.manual_seed(turn)
        module = preset.build().eval()
        windows = probe_windows(card, side, eight_bit=False, count=1, seed=turn)
        inputs = [window.float().requires_grad_() for window in windows]
        scores = module(*inputs)
        y, x = scores.shape[2] // 2, scores.shape[3] // 2
        scores[0, :, y, x].square().sum().backward()
        for group, window in zip(card.groups, inputs, strict=True):
            if window.grad is None:
                continue
            rows, cols = (window.grad[0] != 0).any(0).nonzero(as_tuple=True)
            last = side // group.ratio - 1
            for touched in (rows, cols):
                low, high = int(touched.min()), int(touched.max())
                if low == 0 or high == last:
                    return None
                reach = max(reach, (high - low + 1) * group.ratio)
    return reach
