"""The device that computes."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from citycover.errors import MachineError
from citycover.machine.names import check_device_name

_CPU_INFO = Path("/proc/cpuinfo")


def visible_devices() -> tuple[str, ...]:
    """CUDA devices of this machine, as CUDA_VISIBLE_DEVICES names them."""
    if not torch.cuda.is_available():
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",")) if named else tuple(map(str, range(torch.cuda.device_count())))


def on_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on a device; a GPU that is still at work is not waited for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def kind_of(device: torch.device) -> str:
    """What computes: `cpu`, `mps`, or `cuda` and the name of the GPU."""
    name = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return device.type + name


def device_facts(device: torch.device) -> list[str]:
    """Kind and name of a device, of a processor what it can do."""
    if device.type == "cuda":
        return [kind_of(device), "{}.{}".format(*torch.cuda.get_device_capability(device))]
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return [device.type, platform.processor()]
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    return [device.type, told.get("model name", ""), told.get("flags", told.get("Features", ""))]


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps` as a device that is there.

    Raises:
        MachineError: the device is not there.
        ConfigError: the name means nothing.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise MachineError(
            f"device {name!r} cannot be used here ({reason}); use --device cpu or --device auto"
        ) from None
    return device
