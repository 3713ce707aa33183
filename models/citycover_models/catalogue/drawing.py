"""Draws a network from the network itself: its parts in the order in which they run, with what they give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from citycover_models.catalogue.counts import meta_windows
from citycover_models.catalogue.preset import Preset

_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a network as it ran."""

    name: str
    """Path inside the network: `trunk.stage1`."""
    kind: str
    """Class of the module."""
    shape: tuple[int, ...]
    """Of what it gives, without the batch; of the last of several tensors; () where it gives none."""
    parameters: int
    calls: int

    @property
    def depth(self) -> int:
        """1 for parts of the network, 2 for parts of those."""
        return self.name.count(".") + 1


def parts_of(preset: Preset) -> tuple[Part, ...]:
    """Parts of a preset down to the second level, in the order of their first use.

    Runs the network on the meta device: no memory, no numbers.
    """
    with torch.device("meta"):
        network = preset.build().eval()
    shapes: dict[str, tuple[int, ...]] = {}
    calls: dict[str, int] = {}
    order: list[str] = []
    chosen = {n: m for n, m in network.named_modules() if n and n.count(".") < _DEPTH}

    def entered(name: str) -> None:
        calls[name] = calls.get(name, 0) + 1
        if calls[name] == 1:
            order.append(name)

    def left(name: str, out: object) -> None:
        shapes.setdefault(name, _shape(out))

    for name, module in chosen.items():
        module.register_forward_pre_hook(lambda _m, _i, name=name: entered(name))
        module.register_forward_hook(lambda _m, _i, out, name=name: left(name, out))
    with torch.no_grad():
        network(*meta_windows(preset.card()))
    return tuple(
        Part(name, type(chosen[name]).__name__, shapes[name], _count(chosen[name]), calls[name])
        for name in order
    )


def draw_text(parts: tuple[Part, ...]) -> str:
    """The parts as an indented list: name, class, output, parameters."""
    rows = []
    for part in parts:
        if part.depth > 1 and part.parameters == 0:
            continue
        name = "  " * (part.depth - 1) + part.name
        times = f" x {part.calls}" if part.calls > 1 else ""
        shape = " x ".join(map(str, part.shape))
        rows.append((name + times, part.kind, shape, f"{part.parameters:,}"))
    widths = [max((len(row[k]) for row in rows), default=0) for k in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows
    )


def draw_figure(parts: tuple[Part, ...], title: str, path: Path) -> None:
    """The maps that flow through the network, from left to right, as a PNG or SVG.

    A bar is as high as its map has rows and as wide as it has channels, both on a log scale; parts of one
    parent share a colour. Only maps are drawn: parts that give (c, y, x).
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    inner = {part.name.partition(".")[0] for part in parts if part.depth > 1 and len(part.shape) == 3}
    maps = [p for p in parts if len(p.shape) == 3 and (p.depth > 1 or p.name not in inner)]
    drawn = [p for p in maps if p.parameters] or maps  # rules have no parameters at all
    parents = list(dict.fromkeys(part.name.partition(".")[0] for part in drawn))
    colors = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]  # a listed colormap has them
    figure = Figure(figsize=(max(6.0, 0.55 * len(drawn) + 1), 4.0), layout="constrained")
    axes = figure.subplots()
    left = 0.0
    for part in drawn:
        channels, rows, cols = part.shape
        parent = part.name.partition(".")[0]
        width, height = 0.25 + 0.12 * math.log2(channels), math.log2(rows) + 1
        axes.bar(
            left + width / 2, height, width, bottom=-height / 2, edgecolor="white",
            color=colors[parents.index(parent) % len(colors)],
        )  # fmt: skip
        axes.text(left + width / 2, 0, f"{channels} x {rows} x {cols}", **_LABEL)
        axes.text(left + width / 2, -height / 2 - 0.2, part.name, **_NAME)
        left += width + 0.25
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_axis_off()
    axes.autoscale_view()
    path.parent.mkdir(parents=True, exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "citycover"  # the same file for the same network
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


_LABEL: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "center", "fontsize": 6, "color": "white"}

_NAME = _LABEL | {"color": "black", "va": "top"}


def _shape(out: object) -> tuple[int, ...]:
    if isinstance(out, Tensor):
        return tuple(out.shape[1:])
    if isinstance(out, (list, tuple)) and out:
        return _shape(out[-1])
    return ()


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
