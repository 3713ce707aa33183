"""From a network to a model file: script or export it, prove that nothing changed, put the card inside."""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim

from citycover.builtins import RULES
from citycover.card import ModelCard, parse_card
from citycover.errors import ModelError
from citycover.modelfile import (
    Format,
    check_against_card,
    load_torchscript,
    probe_side,
    probe_windows,
    read_model_file,
    write_exported,
    write_torchscript,
)
from citycover.predictor import passes_gate, to_probabilities
from citycover_models.margins import Margins, measurable, measure_margins
from citycover_models.registry import find_preset
from citycover_models.weights import LoadReport, load_weights

logger = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""Largest |eager - exported| / (1 + |eager|) of a score, fp32."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export proved."""

    path: Path
    card: ModelCard
    sha256: str
    format: Format
    sides: tuple[int, ...]
    """Window sides, in pixels of the finest group, on which both forms were compared."""
    difference: float
    """Largest |eager - exported| / (1 + |eager|) over all probes; 0 where there was nothing to compare."""


def export_torchscript(module: nn.Module, card: ModelCard, path: str | Path) -> ExportReport:
    """Script a network, compare it with itself, check it against its card, and write the model file.

    Scripting, not tracing: a trace freezes whatever depended on the size of its example.

    Raises:
        ModelError: the network cannot be scripted, changes when it is, or contradicts its card.
    """
    module = module.cpu().eval()
    check_against_card(module, card)
    try:
        scripted: torch.jit.ScriptModule = torch.jit.script(module)
    except (RuntimeError, torch.jit.frontend.NotSupportedError, ValueError, TypeError) as error:
        raise ModelError(
            f"network {card.name!r} cannot be scripted: {error}; rewrite the lines named, or "
            "export it as .pt2"
        ) from error
    sides = probe_sides(card)
    difference = compare(module, scripted, card, sides)
    write_torchscript(scripted, card, path)
    return _report(path, sides, difference)


def export_pt2(module: nn.Module, card: ModelCard, path: str | Path) -> ExportReport:
    """Export a network by torch.export, batch and (where the window rule allows) size left open.

    Raises:
        ModelError: the network cannot be exported so, changes when it is, or contradicts its card.
    """
    module = module.cpu().eval()
    check_against_card(module, card)
    windows = _windows(card, probe_side(card))
    logger.info("torch.export looks at every operation, which takes minutes for the largest networks")
    try:
        program = torch.export.export(module, tuple(windows), dynamic_shapes=_open_dimensions(card))
    except Exception as error:
        raise ModelError(
            f"network {card.name!r} cannot be exported by torch.export: {error}; export it as TorchScript"
        ) from error
    sides = probe_sides(card)
    difference = compare(module, program.module(), card, sides)
    write_exported(program, card, path)
    return _report(path, sides, difference)


def adopt_torchscript(file: str | Path, card_toml: str | Path, out: str | Path) -> ExportReport:
    """Give a card to a TorchScript file that was made elsewhere, after a probe of both.

    Raises:
        ModelError: the file or the card cannot be read, or they contradict each other.
    """
    card = read_card(card_toml)
    module = load_torchscript(file, "cpu")
    check_against_card(module, card)
    write_torchscript(module, card, out)
    return _report(out, (probe_side(card),), 0.0)


def read_card(path: str | Path) -> ModelCard:
    """Read a card.toml: the fields of ModelCard, `legend` a built-in name or a table.

    Raises:
        ModelError: the file cannot be read or is no valid card.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"card {path} cannot be read: {error.strerror}; see docs/card.md") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"card {path} is not TOML: {error}; see docs/card.md") from None
    return parse_card(data, str(path))


def write_builtins(folder: str | Path) -> tuple[ExportReport, ...]:
    """Make the files of the built-in rules again; those that are trained: `urban.py`."""
    presets = [find_preset(name) for name in RULES]
    return tuple(export_torchscript(p.build(), p.card(), Path(folder) / f"{p.name}.pt") for p in presets)


@dataclass(frozen=True, slots=True)
class PresetExport:
    """What an export of a preset did, beside what it proved."""

    report: ExportReport
    loaded: LoadReport | None
    """None: random weights."""
    margins: Margins | None
    """None: those of the preset's card were kept, as asked, or because the probe could not tell."""


def export_preset(
    name: str,
    path: str | Path,
    *,
    weights: str | Path | None = None,
    form: Format | None = None,
    measure: bool = True,
) -> PresetExport:
    """Write the model file of a network of the registry.

    Folds what a method keeps apart for training only, tries reduced precision (the card says fp32 where more
    than near-ties flip), measures trim and feather, and proves the written form equal to the network.

    Args:
        name: preset.
        path: file to write.
        weights: see `weights.read_weights`; None: random ones.
        form: `torchscript` or `pt2`; None: by the ending of `path`.
        measure: False keeps trim and feather of the preset's card.

    Raises:
        ModelError: there is no such network, the weights do not fit, or the export changes the network.
    """
    preset = find_preset(name)
    network, card = preset.build().eval(), preset.card()
    loaded = load_weights(network, weights) if weights is not None else None
    trained = f"weights of {Path(weights).name}: {loaded}" if weights is not None else "none: random weights"
    if next(network.parameters(), None) is not None:
        card = card.model_copy(update={"training": trained})
    if preset.fold is not None:
        network = preset.fold(network)
    logger.info("%s: trying bf16", name)
    card = card.model_copy(update={"precision": safe_precision(network, card)})
    margins = None
    if measure and measurable(card):
        logger.info("%s: measuring trim and feather", name)
        with torch.inference_mode():
            margins = measure_margins(network, card)
        card = margins.on(card) if margins else card
    form = form or ("pt2" if Path(path).suffix == ".pt2" else "torchscript")
    logger.info("%s: writing %s as %s, and comparing it with the network", name, path, form)
    report = (export_pt2 if form == "pt2" else export_torchscript)(network, card, path)
    return PresetExport(report, loaded, margins)


def safe_precision(network: nn.Module, card: ModelCard) -> Literal["any", "fp32"]:
    """`fp32` where bf16 flips more than near-ties on random windows, or cannot be computed at all."""
    for seed, side in enumerate(probe_sides(card)[:2]):
        windows = _windows(card, side, seed=seed)
        with torch.inference_mode():
            exact = to_probabilities(network(*windows), card)
            try:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    fast = to_probabilities(network(*windows).float(), card)
            except RuntimeError:
                return "fp32"
        if not passes_gate(exact, fast):
            return "fp32"
    return "any"


def probe_sides(card: ModelCard) -> tuple[int, ...]:
    """Three window sides that the card allows, or the only one."""
    if card.window.fixed:
        return (card.window.size,)
    side = probe_side(card)
    step = probe_side(card, floor=1)
    return (side, side + step, side + 3 * step)


def compare(
    eager: Callable[..., Tensor], exported: Callable[..., Tensor], card: ModelCard, sides: tuple[int, ...]
) -> float:
    """Largest relative difference of two forms of a network on random windows of several sizes and batches.

    Raises:
        ModelError: it is larger than `TOLERANCE`.
    """
    worst = 0.0
    for turn, side in enumerate(sides):
        windows = _windows(card, side, count=1 + turn, seed=turn)
        with torch.inference_mode():
            one, two = eager(*windows), exported(*windows)
        if one.shape != two.shape:
            raise ModelError(
                f"network {card.name!r} changes when it is exported: {tuple(one.shape)} became "
                f"{tuple(two.shape)} for windows of {side}; its code must not fix sizes"
            )
        worst = max(worst, float(((one - two).abs() / (1.0 + one.abs())).max()))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"network {card.name!r} changes when it is exported: scores differ by {worst:.2g}, at most "
            f"{TOLERANCE:.0e} is needed; look for randomness, or for code that depends on training mode"
        )
    return worst


def _windows(card: ModelCard, side: int, *, count: int = 2, seed: int = 0) -> list[Tensor]:
    eight_bit = all("uint8" in group.dtypes for group in card.groups)
    return probe_windows(card, side, eight_bit=eight_bit, count=count, seed=seed)


def _open_dimensions(card: ModelCard) -> tuple[dict[int, object], ...]:
    """Which dimensions of each input stay open: the batch, and y and x unless the window is fixed."""
    free = (0,) if card.window.fixed else (0, 2, 3)
    return tuple(dict.fromkeys(free, Dim.AUTO) for _ in card.groups)


def _report(path: str | Path, sides: tuple[int, ...], difference: float) -> ExportReport:
    written = read_model_file(path)
    return ExportReport(written.path, written.card, written.sha256, written.format, sides, difference)
