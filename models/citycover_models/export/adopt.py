"""A TorchScript file of the user becomes a model file."""

from __future__ import annotations

from pathlib import Path

from citycover.errors import ModelError
from citycover.files.toml import read_toml
from citycover.model.card import ModelCard
from citycover.model.checks import check_against_card
from citycover.model.mlm import parse_card
from citycover.model.network import load_torchscript, write_torchscript
from citycover_models.export.proof import probe_sides
from citycover_models.export.write import ExportReport, report_of


def adopt_torchscript(file: str | Path, card_toml: str | Path, out: str | Path) -> ExportReport:
    """Give a card to a TorchScript file that was made elsewhere, after a probe of both.

    Raises:
        ModelError: the file or the card cannot be read, or they contradict each other.
    """
    card = read_card(card_toml)
    module = load_torchscript(file, "cpu")
    sides = tuple(sorted({*probe_sides(card), card.window.size}))
    check_against_card(module, card, sides=sides)
    write_torchscript(module, card, out)
    return report_of(out, sides, 0.0)


def read_card(path: str | Path) -> ModelCard:
    """Read a card.toml: the fields of ModelCard, `legend` a built-in name or a table.

    Raises:
        ModelError: the file cannot be read or is no valid card.
    """
    data = read_toml(Path(path), "card", ModelError)
    return parse_card(data, str(path))
