"""Forms in which a network may run: by torch, or by a runtime of its own."""

from __future__ import annotations

from typing import Literal, get_args

from citycover.errors import MachineError

Form = Literal["torchscript", "openvino"]

FORMS: tuple[Form, ...] = get_args(Form)
"""`torchscript`, as torch runs the file, is always there; an exported program is run by torch, too."""


def runtime_of(form: Form) -> str | None:
    """What runs a form here, with its version; "" for torch itself, None where it is not installed."""
    if form == "torchscript":
        return ""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{form} {version(form)}"
    except PackageNotFoundError:
        return None


def forms_here() -> tuple[Form, ...]:
    """Forms that can be run with what is installed."""
    return tuple(form for form in FORMS if runtime_of(form) is not None)


def check_form(form: Form, device: str) -> None:
    """Raise unless a network can run in a form on a kind of device.

    Raises:
        MachineError: its runtime is not installed, or computes on processors only.
    """
    if runtime_of(form) is None:
        raise MachineError(
            f"--form {form} needs a runtime that is not installed here; pip install 'citycover[{form}]', or "
            "give --form torchscript"
        )
    if form == "openvino" and device != "cpu":
        raise MachineError(
            f"--form openvino computes on processors, and the device is {device}; give --device cpu"
        )
