"""Writes the built-in models that are rules of colour."""

from __future__ import annotations

from pathlib import Path

from citycover.model.builtin import RULES
from citycover_models.catalogue.registry import find_preset
from citycover_models.export.write import ExportReport, export_torchscript


def write_builtins(folder: str | Path) -> tuple[ExportReport, ...]:
    """Make the files of the built-in rules again; those that are trained: `urban.py`."""
    presets = [find_preset(name) for name in RULES]
    return tuple(export_torchscript(p.build(), p.card(), Path(folder) / f"{p.name}.pt") for p in presets)
