"""Predictor: raw windows in, probabilities out. The only place that knows model formats and precision.

TorchScript runs frozen, in channels_last and in inference mode; reduced precision is eager autocast around
the frozen module, which works for any file. Precision `auto` takes bf16 where the hardware has it and a
probe finds that only near-ties flip (`passes_gate`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from citycover.card import ModelCard
from citycover.errors import ConfigError, MachineError, ModelError
from citycover.modelfile import load_model

Precision = Literal["fp32", "bf16", "fp16"]
_AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

GATE_MEAN = 0.005
"""Largest mean |p_fast - p_fp32|."""
GATE_MARGIN = 0.1
"""fp32 margin between the two best classes above which a flip is more than a near-tie."""
GATE_SHARE = 1e-5
"""Largest share of pixels that may flip above that margin."""


class Predictor(Protocol):
    """Raw windows in, probabilities out. One predictor runs in one long-lived thread."""

    @property
    def card(self) -> ModelCard:
        """What it needs and gives."""
        ...

    @property
    def device(self) -> torch.device:
        """Where windows are wanted."""
        ...

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """Predict.

        Args:
            windows: one (n, band, y, x) tensor of raw digital numbers a band group, on `device`.

        Returns:
            (n, c, y, x) scores on `device`, of any floating type and memory layout: logits or probabilities
            as the card says.
        """
        ...


@dataclass
class FunctionPredictor:
    """A predictor made of a function: the fake beside the protocol."""

    card: ModelCard
    function: Callable[..., Tensor]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """Call the function with one tensor a band group."""
        return self.function(*windows)


class ModelPredictor:
    """A predictor of a model file."""

    def __init__(self, path: Path, device: torch.device, precision: str = "fp32") -> None:
        """Load the network onto the device.

        Raises:
            ModelError: the file is no model, or has no card.
            MachineError: the network does not fit into the memory of the device.
        """
        self.device = device
        self.precision = precision
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # else torch's convolutions call 10 bits of mantissa fp32
        try:
            self._module, self.card = load_model(path, device)
        except torch.OutOfMemoryError:
            raise MachineError(f"model {path} does not fit into the memory of {device}") from None

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """Run the network, in reduced precision where it was chosen."""
        with torch.inference_mode(), self._autocast():
            scores: Tensor = self._module(*windows)
        return scores

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        reduced = _AUTOCAST.get(self.precision)
        if reduced is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=reduced)


_: tuple[type[Predictor], type[Predictor]] = (FunctionPredictor, ModelPredictor)


def to_probabilities(scores: Tensor, card: ModelCard, out: Tensor | None = None) -> Tensor:
    """(n, c, y, x) scores of any type and layout to planar float32 probabilities, the caller's own.

    One copy, and all else in place: a second tensor of this size costs more than the arithmetic.

    Args:
        scores: logits or probabilities, as the card says.
        card: of the network that gave them.
        out: memory for the result; None: new.
    """
    own = torch.empty(scores.shape, dtype=torch.float32, device=scores.device) if out is None else out
    own.copy_(scores)
    if card.activation == "probabilities":
        return own
    if card.task == "labels":
        return own.sigmoid_()
    return torch.softmax(own, 1, out=own)


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps` as a device that is there.

    Raises:
        MachineError: the device is not there.
        ConfigError: the name means nothing.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.partition(":")[0] not in {"cpu", "cuda", "mps"}:
        raise ConfigError(f"--device takes auto, cpu, cuda, cuda:1 or mps; got {name!r}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise MachineError(
            f"device {name!r} cannot be used here ({reason}); use --device cpu or --device auto"
        ) from None
    return device


def fast_precision(device: torch.device) -> Precision | None:
    """The reduced precision that the hardware computes in natively, or None."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and any(_cpu_has(feature) for feature in ("avx512_bf16", "amx_tile")):
        return "bf16"
    return None


def _cpu_has(feature: str) -> bool:
    """Ask torch, which has no public word for it yet."""
    ask = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return bool(ask and ask())


def passes_gate(exact: Tensor, fast: Tensor) -> bool:
    """Whether reduced precision flips near-ties only.

    Args:
        exact: (n, c, y, x) fp32 probabilities.
        fast: the same in reduced precision.
    """
    if not torch.isfinite(fast).all() or (exact - fast).abs().mean() > GATE_MEAN:
        return False
    if exact.shape[1] < 2:
        return True
    best = exact.topk(2, dim=1)
    margin = best.values[:, 0] - best.values[:, 1]
    flipped = (fast.argmax(1) != best.indices[:, 0]) & (margin > GATE_MARGIN)
    return bool(flipped.float().mean() <= GATE_SHARE)


def check_scores(scores: Tensor, card: ModelCard, windows: int, side: tuple[int, int]) -> None:
    """Raise ModelError unless scores have the shape that the card promises."""
    wanted = (windows, len(card.channels), *side)
    if tuple(scores.shape) != wanted:
        raise ModelError(
            f"model {card.name!r} gave scores of shape {tuple(scores.shape)}; its card promises {wanted} "
            "(windows, channels, y, x); mend the card and export again"
        )
