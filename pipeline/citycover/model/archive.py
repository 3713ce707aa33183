"""Model files: a network with its card inside. TorchScript (.pt) and torch.export (.pt2) are equals.

Both formats are zip archives that hold the card as `<archive>/extra/card.json`, so a card is read without
importing torch and without loading the network. The format is told by content, never by the file's name.
`model/network.py` is the other side: it loads and writes what torch needs.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from citycover.errors import ModelError
from citycover.files.identity import sha256_of
from citycover.files.plain import parse_json
from citycover.model.card import ModelCard
from citycover.model.mlm import parse_card

Format = Literal["torchscript", "pt2"]

CARD = "card.json"

_MOST_CARD = 4 << 20
"""Bytes of a card; what says more is none."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a model file says about itself without running it."""

    path: Path
    card: ModelCard
    sha256: str
    """Of the whole file."""
    format: Format


def read_model_file(path: str | Path) -> ModelFile:
    """Read card, checksum and format; no torch, no network.

    Raises:
        ModelError: the file cannot be read, is no model, or has no valid card.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            kind = _format_of(names, path)
            text = _card_text(archive, names, path)
        digest = sha256_of(path)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise _unreadable(path, error) from None
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ModelError(f"the card inside {path} is not JSON: {error}; export the model again") from None
    if not isinstance(data, dict):
        raise ModelError(f"the card inside {path} is not an object; export the model again")
    return ModelFile(path, parse_card(data, str(path)), digest, kind)


def _format_of(names: list[str], path: Path) -> Format:
    if any(name.endswith("/archive_format") for name in names):
        return "pt2"
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return "torchscript"
    raise ModelError(
        f"{path} is a zip archive, but neither TorchScript nor torch.export (a checkpoint of weights?); "
        "script the network and save it by torch.jit.save, or use `citycover export`"
    )


def check_format(path: Path, wanted: Format) -> None:
    """Raise unless a file is a model of this format.

    Raises:
        ModelError: it is another, or none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _format_of(archive.namelist(), path)
    except (OSError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    if found != wanted:
        raise ModelError(f"{path} holds a {found} model; a {wanted} one is needed here")


def _card_text(archive: zipfile.ZipFile, names: list[str], path: Path) -> bytes:
    for name in names:
        if name.endswith(f"/extra/{CARD}"):
            if archive.getinfo(name).file_size > _MOST_CARD:
                raise ModelError(f"the card inside {path} is larger than 4 MiB; export the model again")
            return archive.read(name)
    raise ModelError(
        f"model {path} has no card; give it one: "
        f"citycover export --torchscript {path} --card card.toml -o model.pt (docs/card.md)"
    )


def _unreadable(path: Path, error: Exception) -> ModelError:
    if isinstance(error, zipfile.BadZipFile):
        return ModelError(
            f"{path} is not a model file: TorchScript and torch.export files are zip archives and this is "
            f"none ({error}); it may be cut short, or weights without a network"
        )
    reason = getattr(error, "strerror", None) or str(error)
    return ModelError(f"model file {path} cannot be read: {reason}; check the path")
