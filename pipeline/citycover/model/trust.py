"""What a model file may hold before any of it is given to torch: see docs/security.md.

A model file is close to a program. Two kinds of content are worse than the network itself, and neither is
needed by one: pickles, which run any code while they are read, and operators that reach the file system. Both
are refused by looking at the archive. This is no sandbox: a network still computes whatever it likes, for as
long as it likes, and operators that a library has registered are its own. `model/trusted.py` is the
answer to that: only files whose sha256 is known are run.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from citycover.errors import ModelError

_PT2_PLACES = ("models", "data/weights", "data/constants", "data/sample_inputs", "extra", ".data")
_PT2_FILES = ("archive_format", "archive_version", "byteorder", "version")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_REACHES_OUT = re.compile(r"\b(?:torch|ops\.aten)\.(?:save|from_file|load)\s*\(|\baten::(?:save|from_file)\b")
"""Operators of TorchScript that read or write files."""
_MOST_CODE = 64 << 20
"""Bytes of source in one file of an archive."""


def check_exported(path: Path) -> None:
    """Raise unless a torch.export archive holds nothing but a graph, tensors and text.

    torch.export.load reads samples, and whatever the archive's own lists call a pickle, by a reader that runs
    code; here they are read first by the one that knows tensors only.

    Raises:
        ModelError: it holds a pickle of anything else, compiled code, or files of no known kind.
    """
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
        inner = {name: name.split("/", 1)[-1] for name in members}
        strange = sorted(name for name, place in inner.items() if not _is_known(place))
        if strange:
            raise _refused(path, f"it holds {strange[0]}, which is no part of a network")
        raw = {name for kind in ("weights", "constants") for name in _raw_tensors(archive, inner, kind)}
        for name, place in inner.items():
            if place.startswith("data/") and not place.endswith("_config.json") and name not in raw:
                _check_tensors(path, name, archive.read(name))


def _is_known(place: str) -> bool:
    return place in _PT2_FILES or any(place.startswith(f"{folder}/") for folder in _PT2_PLACES)


def _raw_tensors(archive: zipfile.ZipFile, inner: dict[str, str], kind: str) -> set[str]:
    """Members that the archive's lists call plain bytes of a tensor: they are never unpickled."""
    prefix = f"data/{kind}/"
    found = set()
    for name, place in inner.items():
        if place.startswith(prefix) and place.endswith("_config.json"):
            try:
                config = json.loads(archive.read(name))["config"]
                entries = [e for e in config.values() if e["use_pickle"] is False and e["tensor_meta"]]
                found |= {f"{name.split('/', 1)[0]}/{prefix}{e['path_name']}" for e in entries}
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # then every member of the folder is looked into
    pickled = {name for name in found if PurePosixPath(name).name.startswith(("custom_obj", "opaque"))}
    return found - pickled


def _check_tensors(path: Path, name: str, content: bytes) -> None:
    import torch

    try:
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  (the reader meets arbitrary bytes)
        raise _refused(path, f"{name} holds more than tensors ({type(error).__name__})") from None
    if not _is_plain(held):
        raise _refused(path, f"{name} holds more than tensors")


def _is_plain(value: Any) -> bool:
    import torch

    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return isinstance(value, (torch.Tensor, torch.Size, torch.dtype, torch.device, *_PLAIN))


def check_torchscript(path: Path) -> None:
    """Raise where the code of a TorchScript archive calls an operator that reads or writes files.

    Raises:
        ModelError: it does.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if "/code/" not in entry.filename or not entry.filename.endswith(".py"):
                continue
            if entry.file_size > _MOST_CODE:
                raise _refused(path, f"{entry.filename} holds {entry.file_size >> 20} MiB of code")
            found = _REACHES_OUT.search(archive.read(entry).decode("utf-8", "replace"))
            if found:
                raise _refused(path, f"its code calls {found.group().rstrip('( ')}, which reaches for files")


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(
        f"model {path} is refused, nothing of it was run: {why}; export the network again with "
        "`citycover export`, from sources that you trust (docs/security.md)"
    )
