"""Weights of a network from a file, by name and shape. Nothing is ever unpickled but tensors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover.files.atomic import write_atomic


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of each tensor."""

    used: tuple[str, ...]
    skipped: tuple[str, ...]
    """In the file, not in the network; or of a head for another number of classes."""
    missing: tuple[str, ...]
    """In the network, not in the file: still as they were initialised."""

    def __str__(self) -> str:
        return f"{len(self.used)} used, {len(self.skipped)} skipped, {len(self.missing)} missing"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, or from a checkpoint by `weights_only` loading.

    Raises:
        ModelError: the file is none of these, is damaged, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"weights {path} are no file; give a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged pickle fails in any way
        raise ModelError(f"weights {path} {_what_is_wrong(path, error)}") from None
    return tensors_of(data, path)


def tensors_of(data: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: itself, or under one of the usual keys.

    Raises:
        ModelError: there is none.
    """
    for key in ("state_dict", "model", "model_state_dict", "net"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if isinstance(data, dict):
        found = {str(k): v for k, v in data.items() if isinstance(v, Tensor)}
        if found:
            return found
    raise ModelError(f"weights {path} hold no tensors by name; a state dict is needed")


def write_weights(network: nn.Module, path: str | Path) -> None:
    """Write the state of a network as .safetensors."""
    write_tensors(network.state_dict(), path)


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors as .safetensors, by atomic rename and with the permissions of any other file."""
    content = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})
    write_atomic(Path(path), lambda file: file.write(content))


def load_weights(network: nn.Module, path: str | Path) -> LoadReport:
    """Put the weights of a file into a network, by name.

    Weights that were trained for another number of classes are welcome: heads are skipped then, everything
    else is used.

    Raises:
        ModelError: the file cannot be read, nothing in it fits, or a shape contradicts the network.
    """
    given = read_weights(path)
    wanted = network.state_dict()
    _check_shapes(given, wanted, path)
    used = tuple(k for k in given if k in wanted and given[k].shape == wanted[k].shape)
    report = LoadReport(
        used,
        skipped=tuple(k for k in given if k not in used),
        missing=tuple(k for k in wanted if k not in used),
    )
    if not used:
        raise ModelError(
            f"weights {path} fit nothing in the network: they begin with {next(iter(given))!r}, the network "
            f"with {next(iter(wanted), 'nothing')!r}; give weights of this very network"
        )
    network.load_state_dict({k: given[k] for k in used}, strict=False)
    return report


def _check_shapes(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise ModelError where names agree and shapes do not, unless only the number of classes differs.

    That case is known without knowing which layers are heads: nothing follows a head, so wherever a tensor
    differs, it differs in its first dimension alone, and by the same two numbers.
    """
    differs = {
        name: (tuple(given[name].shape), tuple(wanted[name].shape))
        for name in given
        if name in wanted and given[name].shape != wanted[name].shape
    }
    classes = {(got[:1], needed[:1]) for got, needed in differs.values()}
    if len(classes) <= 1 and all(got and got[1:] == needed[1:] for got, needed in differs.values()):
        return
    listed = [f"{name} is {got}, needed {needed}" for name, (got, needed) in differs.items()]
    if len(listed) > 4:
        listed[4:] = [f"and {len(listed) - 4} more"]
    raise ModelError(
        f"weights {path} contradict the network in {len(differs)} of {len(wanted)} shapes: "
        f"{'; '.join(listed)}; give weights of this very network, or let `citycover import-weights` fit a "
        "public checkpoint; a training with bands of its own leaves model.pt, and with --pt2 model.pt2"
    )


def how_it_begins(path: Path) -> bytes:
    """The first bytes of a file, of which most kinds can be told.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(_HEAD)


_HEAD = 9

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
"""How checkpoints of PyTorch begin, those of today and those of old."""


def _what_is_wrong(path: Path, error: Exception) -> str:
    """Why a file could not be read, by how it begins, and what is needed."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    head = how_it_begins(path)
    safe, checkpoint = head[8:] == b"{", head.startswith((_ZIP, _PICKLE))
    if not (safe or checkpoint):
        begin = f"begin with {head!r}" if head else "are empty"
        return (
            f"are neither a checkpoint of PyTorch nor a .safetensors file: they {begin}; needed is the whole "
            "file, not a page or a pointer in its place; fetch it anew"
        )
    if safe != (path.suffix == ".safetensors"):
        kind, ending = (
            ("a .safetensors file", ".safetensors") if safe else ("a checkpoint of PyTorch", ".pth")
        )
        return f"are {kind}, by how they begin; name it {path.with_suffix(ending).name}"
    if "TorchScript" in str(error):
        return "are a model of TorchScript; needed are weights alone, as weights.safetensors of a training"
    if isinstance(error, pickle.UnpicklingError):
        return (
            "are no file of tensors alone; they are not loaded, because that could run foreign code; save "
            "them as .safetensors where they come from"
        )
    return (
        f"cannot be read ({_first_sentence(error)}): the file is no checkpoint, cut short, or changed on its "
        "way; fetch it anew"
    )


def _first_sentence(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
