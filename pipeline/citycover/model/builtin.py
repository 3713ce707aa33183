"""The built-in models: model files that ship as package data."""

from __future__ import annotations

from pathlib import Path

from citycover.errors import ModelError
from citycover.model.archive import ModelFile, read_model_file

FOLDER = Path(__file__).resolve().parent.parent / "builtin"

RULES = ("spectral-rgbn", "spectral-s2", "spectral-rgb")
"""Rules of colour, in the order in which one is taken where several fit a scene: more bands know more."""

TRAINED = ("urban-rgbn-1m", "urban-rgb-1m")
"""Trained on practice cities for the most part: taken only where they are named."""

NAMES = RULES + TRAINED


def builtin_path(name: str) -> Path:
    """Where the file of a built-in model is.

    Raises:
        ModelError: there is no such model.
    """
    if name not in NAMES:
        raise ModelError(
            f"there is no built-in model {name!r}; built in: {', '.join(NAMES)}; "
            "give one of these or the path of a model file"
        )
    return FOLDER / f"{name}.pt"


def read_builtins() -> tuple[ModelFile, ...]:
    """The built-in models that are taken unasked, with their cards, in order of preference."""
    return tuple(read_model_file(builtin_path(name)) for name in RULES)


def find_model(name_or_file: str | Path) -> Path:
    """Path of a model file given as a built-in name or as a path.

    Raises:
        ModelError: it is neither a built-in name nor an existing file.
    """
    if str(name_or_file) in NAMES:
        return builtin_path(str(name_or_file))
    path = Path(name_or_file)
    if not path.is_file():
        raise ModelError(
            f"there is no model {str(name_or_file)!r}; built in: {', '.join(NAMES)}; "
            "give one of these or the path of a .pt or .pt2 file"
        )
    return path
