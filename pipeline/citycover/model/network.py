"""Networks out of model files and into them: the only place that knows how the two formats differ."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from citycover.errors import ModelError
from citycover.files.atomic import atomic_path
from citycover.model.archive import CARD, Format, ModelFile, check_format, read_model_file
from citycover.model.card import ModelCard
from citycover.model.mlm import card_to_json
from citycover.model.pointwise import pin_exported, pin_scripted
from citycover.model.trust import check_exported, check_torchscript
from citycover.model.trusted import check_trusted

_CHUNK = 1 << 20

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

_CONSTANTS = re.compile(rb"(?:^  \w+ : Final\[.*\n)+", re.MULTILINE)
"""Lines of TorchScript that declare constants of a class."""


def load_model(
    path: str | Path, device: torch.device | str, sha256: str | None = None
) -> tuple[Callable[..., Tensor], ModelFile]:
    """Load a network of either format, in evaluation mode, with what its file says.

    TorchScript comes frozen and in channels_last memory format, the fastest form of a loaded file.

    Args:
        path: of the file.
        device: that it is loaded onto.
        sha256: that the file must have; None: any.

    Raises:
        ModelError: the file cannot be read, is no model, has no valid card, or is not trusted.
    """
    model = read_model_file(path)
    check_trusted(model.path, model.sha256, sha256)
    return _FORMATS[model.format](model.path, device), model


def load_torchscript(path: str | Path, device: torch.device | str) -> torch.jit.ScriptModule:
    """Load a TorchScript file, with or without a card, onto the device, in evaluation mode.

    Raises:
        ModelError: the file cannot be read or holds no TorchScript module.
    """
    path = Path(path)
    check_format(path, "torchscript")
    check_torchscript(path)
    with _loading(path):
        module: torch.jit.ScriptModule = torch.jit.load(path, map_location=device)
    return module.eval()


def load_exported(path: str | Path, device: torch.device | str) -> torch.nn.Module:
    """Load a torch.export file, with or without a card, onto the device.

    Raises:
        ModelError: the file cannot be read or holds no exported program.
    """
    from torch.export.passes import move_to_device_pass

    path = Path(path)
    check_format(path, "pt2")
    check_exported(path)
    with _loading(path):
        program = torch.export.load(path)
    if torch.device(device).type != "cpu":
        return move_to_device_pass(program, torch.device(device)).module()
    network = program.module()
    pin_exported(network)
    return network


def write_torchscript(module: torch.jit.ScriptModule, card: ModelCard, path: str | Path) -> None:
    """Write a TorchScript module with its card: a temporary file beside it, then a rename.

    Source positions are left out: they hold paths of the machine that exports, and nothing needs them.
    """
    with _writing(Path(path)) as part:
        torch.jit.save(module, part, _extra_files={CARD: card_to_json(card)})
        _repack(part)


def write_exported(program: torch.export.ExportedProgram, card: ModelCard, path: str | Path) -> None:
    """Write an exported program with its card: a temporary file beside it, then a rename.

    Source positions are left out, as for TorchScript.
    """
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    with _writing(Path(path)) as part:
        torch.export.save(program, part, extra_files={CARD: card_to_json(card)})


def load_fast_torchscript(path: Path, device: torch.device | str) -> Callable[..., Tensor]:
    """Load a TorchScript file as it maps: frozen, in channels_last, the same by any number of threads.

    Raises:
        ModelError: as `load_torchscript`.
    """
    module = load_torchscript(path, device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's overloads
    frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
    if torch.device(device).type == "cpu":
        pin_scripted(frozen.graph)
    return frozen


_FORMATS: dict[Format, Callable[[Path, Any], Callable[..., Any]]] = {
    "torchscript": load_fast_torchscript,
    "pt2": load_exported,
}


@contextmanager
def _loading(path: Path) -> Iterator[None]:
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
    """Rewrite a TorchScript archive without source positions and with fixed names, dates and order.

    The same network is then the same file: by its hash a map knows whether it is made by the same one.
    """
    clean = path.with_stem(f"{path.stem}.clean.tmp")  # by its name, too, what a kill leaves is known
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as new:
            for entry in sorted(old.infolist(), key=lambda e: e.filename.split("/", 1)[1]):
                if entry.filename.endswith((".debug_pkl", "/.data/serialization_id")):
                    continue  # positions; a number of the bytes as torch wrote them
                name = "model/" + entry.filename.split("/", 1)[1]
                target = new.open(
                    zipfile.ZipInfo(name, _ZIP_EPOCH), "w", force_zip64=entry.file_size > 1 << 30
                )
                with old.open(entry) as source, target:
                    if name.endswith(".py"):
                        target.write(_CONSTANTS.sub(_by_name, source.read()))
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
        clean.replace(path)
    finally:
        clean.unlink(missing_ok=True)


def _by_name(lines: re.Match[bytes]) -> bytes:
    """Constants of a class, ascending: torch writes them in the order of a set, another in each process."""
    return b"".join(sorted(lines[0].splitlines(keepends=True)))


def last_line(error: Exception) -> str:
    r"""The sentence of a long error that says what happened.

    >>> last_line(RuntimeError("Traceback:\n f(x)\nRuntimeError: Cannot run. Perhaps\nCPU: at x.cpp"))
    'RuntimeError: Cannot run'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"\w+Error: ", line)] or lines
    return named[-1].split(". ")[0] if named else type(error).__name__
