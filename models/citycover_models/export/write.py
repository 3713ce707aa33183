"""From a network to a model file: script or export it, prove that nothing changed, put the card inside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim

from citycover.errors import ModelError
from citycover.model.archive import Format, read_model_file
from citycover.model.card import ModelCard
from citycover.model.checks import check_against_card, probe_side
from citycover.model.network import write_exported, write_torchscript
from citycover_models.export.proof import compare, go_on, probe_sides, proof_windows

logger = logging.getLogger(__name__)


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


def export_torchscript(
    module: nn.Module, card: ModelCard, path: str | Path, *, heed: Callable[[], None] = go_on
) -> ExportReport:
    """Script a network, compare it with itself, check it against its card, and write the model file.

    Scripting, not tracing: a trace freezes whatever depended on the size of its example.

    Args:
        module: the network; it is moved to the CPU.
        card: what it says of itself.
        path: file to write.
        heed: called before each part of the work, of which the large ones take minutes; it may raise.

    Raises:
        ModelError: the network cannot be scripted, changes when it is, or contradicts its card.
    """
    module = module.cpu().eval()
    check_against_card(module, card)
    heed()
    try:
        scripted: torch.jit.ScriptModule = torch.jit.script(module)
    except (RuntimeError, torch.jit.frontend.NotSupportedError, ValueError, TypeError) as error:
        raise ModelError(
            f"network {card.name!r} cannot be scripted: {error}; rewrite the lines named, or "
            "export it as .pt2"
        ) from error
    sides = probe_sides(card)
    difference = compare(module, scripted, card, sides, heed)
    write_torchscript(scripted, card, path)
    return report_of(path, sides, difference)


def export_pt2(
    module: nn.Module, card: ModelCard, path: str | Path, *, heed: Callable[[], None] = go_on
) -> ExportReport:
    """Export a network by torch.export, batch and (where the window rule allows) size left open.

    Args:
        module: the network; it is moved to the CPU.
        card: what it says of itself.
        path: file to write.
        heed: called before each part of the work, but `torch.export` itself is one; it may raise.

    Raises:
        ModelError: the network cannot be exported so, changes when it is, or contradicts its card.
    """
    module = module.cpu().eval()
    check_against_card(module, card)
    windows = proof_windows(card, probe_side(card))
    heed()
    logger.info("torch.export looks at every operation, which takes minutes for the largest networks")
    try:
        program = torch.export.export(module, tuple(windows), dynamic_shapes=_open_dimensions(card))
    except Exception as error:
        raise ModelError(
            f"network {card.name!r} cannot be exported by torch.export: {error}; export it as TorchScript"
        ) from error
    sides = probe_sides(card)
    difference = compare(module, program.module(), card, sides, heed)
    write_exported(program, card, path)
    return report_of(path, sides, difference)


def _open_dimensions(card: ModelCard) -> tuple[dict[int, object], ...]:
    """Which dimensions of each input stay open: the batch, and y and x unless the window is fixed."""
    free = (0,) if card.window.fixed else (0, 2, 3)
    return tuple(dict.fromkeys(free, Dim.AUTO) for _ in card.groups)


def report_of(path: str | Path, sides: tuple[int, ...], difference: float) -> ExportReport:
    """What was written, as it is read again."""
    written = read_model_file(path)
    return ExportReport(written.path, written.card, written.sha256, written.format, sides, difference)
