"""Model files: a network with its card inside. TorchScript (.pt) and torch.export (.pt2) are equals.

Both formats are zip archives that hold the card as `<archive>/extra/card.json`, so a card is read without
importing torch and without loading the network. The format is told by content, never by the file's name:
`_FORMATS` is the only place that knows how they differ.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from citycover.errors import ModelError
from citycover.files.atomic import atomic_path
from citycover.files.identity import sha256_of
from citycover.model.card import ModelCard
from citycover.model.mlm import card_to_json, parse_card
from citycover.model.trust import check_exported, check_torchscript

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Format = Literal["torchscript", "pt2"]

CARD = "card.json"

_CHUNK = 1 << 20

_MOST_CARD = 4 << 20
"""Bytes of a card; what says more is none."""

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


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
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the card inside {path} is not JSON: {error}; export the model again") from None
    if not isinstance(data, dict):
        raise ModelError(f"the card inside {path} is not an object; export the model again")
    return ModelFile(path, parse_card(data, str(path)), digest, kind)


def load_model(path: str | Path, device: torch.device | str) -> tuple[Callable[..., Tensor], ModelCard]:
    """Load a network of either format, in evaluation mode, with its card.

    TorchScript comes frozen and in channels_last memory format, the fastest form of a loaded file.

    Raises:
        ModelError: the file cannot be read, is no model, or has no valid card.
    """
    model = read_model_file(path)
    return _FORMATS[model.format](model.path, device), model.card


def load_torchscript(path: str | Path, device: torch.device | str) -> torch.jit.ScriptModule:
    """Load a TorchScript file, with or without a card, onto the device, in evaluation mode.

    Raises:
        ModelError: the file cannot be read or holds no TorchScript module.
    """
    import torch

    path = Path(path)
    _need(path, "torchscript")
    check_torchscript(path)
    with _loading(path):
        module: torch.jit.ScriptModule = torch.jit.load(path, map_location=device)
    return module.eval()


def load_exported(path: str | Path, device: torch.device | str) -> torch.nn.Module:
    """Load a torch.export file, with or without a card, onto the device.

    Raises:
        ModelError: the file cannot be read or holds no exported program.
    """
    import torch
    from torch.export.passes import move_to_device_pass

    path = Path(path)
    _need(path, "pt2")
    check_exported(path)
    with _loading(path):
        program = torch.export.load(path)
    if torch.device(device).type != "cpu":
        program = move_to_device_pass(program, torch.device(device))
    return program.module()


def write_torchscript(module: torch.jit.ScriptModule, card: ModelCard, path: str | Path) -> None:
    """Write a TorchScript module with its card: a temporary file beside it, then a rename.

    Source positions are left out: they hold paths of the machine that exports, and nothing needs them.
    """
    import torch

    with _writing(Path(path)) as part:
        torch.jit.save(module, part, _extra_files={CARD: card_to_json(card)})
        _repack(part)


def write_exported(program: torch.export.ExportedProgram, card: ModelCard, path: str | Path) -> None:
    """Write an exported program with its card: a temporary file beside it, then a rename.

    Source positions are left out, as for TorchScript.
    """
    import torch

    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    with _writing(Path(path)) as part:
        torch.export.save(program, part, extra_files={CARD: card_to_json(card)})


def _load_fast_torchscript(path: Path, device: torch.device | str) -> Callable[..., Tensor]:
    import torch

    module = load_torchscript(path, device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's overloads
    frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
    return frozen


_FORMATS: dict[Format, Callable[[Path, Any], Callable[..., Any]]] = {
    "torchscript": _load_fast_torchscript,
    "pt2": load_exported,
}


def _format_of(names: list[str], path: Path) -> Format:
    if any(name.endswith("/archive_format") for name in names):
        return "pt2"
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return "torchscript"
    raise ModelError(
        f"{path} is a zip archive, but neither TorchScript nor torch.export (a checkpoint of weights?); "
        "script the network and save it by torch.jit.save, or use `citycover export`"
    )


def _need(path: Path, wanted: Format) -> None:
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


@contextmanager
def _loading(path: Path) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"torch {torch.__version__} cannot load {path}: {last_line(error)}; export it again with this "
            "torch, or register the operators that it needs"
        ) from error


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which becomes it when the block succeeds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            yield part
    except OSError as error:
        raise ModelError(f"model file {path} cannot be written: {error.strerror or error}") from error


def _repack(path: Path) -> None:
    """Rewrite a TorchScript archive without source positions and with fixed names, dates and order."""
    clean = path.with_name(path.name + ".clean")
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as new:
            for entry in sorted(old.infolist(), key=lambda e: e.filename.split("/", 1)[1]):
                if entry.filename.endswith(".debug_pkl"):
                    continue
                name = "model/" + entry.filename.split("/", 1)[1]
                target = new.open(
                    zipfile.ZipInfo(name, _ZIP_EPOCH), "w", force_zip64=entry.file_size > 1 << 30
                )
                with old.open(entry) as source, target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
        clean.replace(path)
    finally:
        clean.unlink(missing_ok=True)


def last_line(error: Exception) -> str:
    """The line of a long error that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
