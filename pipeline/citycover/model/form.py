"""Forms in which a network may run: by torch, or by a runtime of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from typing import Literal, get_args

from citycover.errors import MachineError
from citycover.model.precision import PRECISIONS, Precision

Form = Literal["torchscript", "cudnn", "openvino", "aotinductor", "tensorrt"]

FORMS: tuple[Form, ...] = get_args(Form)
"""`torchscript`, as torch runs the file, is always there; an exported program is run by torch, too."""

_TORCHS = ("torchscript", "cudnn")
"""Forms that torch runs without anything else."""

_ONNX = ("onnx", "onnxscript", "onnxruntime-gpu")
"""What brings a network to TensorRT."""

_TENSORRT = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
"""Packages in which TensorRT comes."""

_DIRECTORIES = (2, 13)
"""First torch that loads what AOTInductor made from a folder, without unpacking it elsewhere."""


def runtime_of(form: Form) -> str | None:
    """What runs a form here, with its version; "" for torch itself, None where it is not installed."""
    if form in _TORCHS:
        return ""
    if form == "aotinductor":
        number = _version("torch")
        return None if _why_no_compiler() else f"{form} {number}"
    if form == "tensorrt":
        versions = [*map(_version, _ONNX), tensorrt_version()]
        return f"onnxruntime {versions[2]}" if all(versions) else None
    number = _version(form)
    return number and f"{form} {number}"


def tensorrt_version() -> str | None:
    """Of what is installed; None: it is not."""
    return next(filter(None, map(_version, _TENSORRT)), None)


def forms_here(device: str = "cpu") -> tuple[Form, ...]:
    """Forms that can be run on a kind of device with what is installed."""
    return tuple(form for form in FORMS if _why_not(form, device) is None)


def precisions_of(form: Form) -> tuple[Precision, ...]:
    """Those in which a form can compute: TensorRT multiplies fp32 numbers as tf32, always."""
    return tuple(one for one in PRECISIONS if (form, one) != ("tensorrt", "fp32"))


def check_form(form: Form, device: str) -> None:
    """Raise unless a network can run in a form on a kind of device.

    Raises:
        MachineError: its runtime is not installed, or is none for such devices.
    """
    if (why := _why_not(form, device)) is not None:
        raise MachineError(f"--form {form} {why}")


def _why_not(form: Form, device: str) -> str | None:
    if form == "torchscript":
        return None
    if form == "aotinductor":
        return _why_not_compiled(device)
    if form == "cudnn":
        return _why_no_cudnn(device)
    if runtime_of(form) is None:
        what = f"'citycover[{form}]'{' tensorrt' if form == 'tensorrt' else ''}"
        return f"needs a runtime that is not installed here; pip install {what}, or give --form torchscript"
    if form == "openvino" and device != "cpu":
        return f"computes on processors, and the device is {device}; give --device cpu"
    if form == "tensorrt" and device != "cuda":
        return f"computes on CUDA devices, and the device is {device}; give --device cuda"
    return None


def _why_not_compiled(device: str) -> str | None:
    if device not in {"cpu", "cuda"}:
        return f"computes on processors and CUDA devices, and the device is {device}; give --device cpu"
    if why := _why_no_compiler():
        return f"{why}, or give --form torchscript"
    if device == "cuda" and _version("triton") is None:
        return "needs triton on CUDA devices, which is not installed here; pip install triton"
    return None


def _why_no_cudnn(device: str) -> str | None:
    if device != "cuda":
        return f"computes on CUDA devices, and the device is {device}; give --device cuda"
    number = _version("torch") or ""
    if "rocm" in number:  # whose devices torch calls cuda, too
        return f"needs torch with cuDNN, and this is {number}; give --form torchscript"
    return None


def _why_no_compiler() -> str | None:
    number = _version("torch") or "0.0"
    if tuple(map(int, number.split(".")[:2])) < _DIRECTORIES:
        needed = ".".join(map(str, _DIRECTORIES))
        return f"needs torch {needed} or later, and this is {number}; install a later one"
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++"))):
        return "compiles networks by g++, which is not on the PATH; install it (apt install g++)"
    return None


def _version(package: str) -> str | None:
    from importlib import metadata

    return _told_by(metadata.version, package)


@cache
def _told_by(version: Callable[[str], str], package: str) -> str | None:
    """Looked for once a process: it takes milliseconds, and a small scene asks twenty times."""
    from importlib.metadata import PackageNotFoundError

    try:
        return version(package)
    except PackageNotFoundError:
        return None
