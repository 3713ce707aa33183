"""A TorchScript file of the user becomes a model file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from citycover.errors import ModelError
from citycover.model.card import ModelCard
from citycover.model.checks import check_against_card
from citycover.model.mlm import parse_card
from citycover.model.network import load_torchscript, write_torchscript
from citycover_models.export.proof import probe_sides
from citycover_models.export.write import ExportReport, report_of

_MOST_CARD = 1 << 20
"""Bytes of a card.toml."""


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
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_CARD:
            raise ModelError(f"card {path} is larger than 1 MiB, so it is no card; see docs/card.md")
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ModelError(f"card {path} cannot be read: {error.strerror}; see docs/card.md") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"card {path} is not TOML: {error}; see docs/card.md") from None
    return parse_card(data, str(path))
