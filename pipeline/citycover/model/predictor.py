"""Predictor: raw windows in, probabilities out. The only place that knows model formats and precision.

TorchScript runs frozen, in channels_last and in inference mode; reduced precision is eager autocast around
the frozen module, which works for any file. Another form is made of that module when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from citycover.errors import MachineError, StoppedError
from citycover.model.aotinductor import AotInductor
from citycover.model.autocast import autocast
from citycover.model.card import ModelCard
from citycover.model.checks import run_network
from citycover.model.converted import ConvertedNetwork, Runtime, Shapes, Source, Stop
from citycover.model.cudnn import CuDnn
from citycover.model.form import Form, check_form, precisions_of
from citycover.model.network import load_model
from citycover.model.openvino import OpenVino
from citycover.model.precision import PRECISIONS, Precision
from citycover.model.tensorrt import TensorRt

_CONVERTED: Mapping[Form, Runtime] = {
    one.form: one for one in (CuDnn(), OpenVino(), AotInductor(), TensorRt())
}
"""What runs forms other than torch's."""


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

    def at(self, precision: Precision, form: Form = "torchscript") -> Predictor:
        """The same network in a precision and a form; a network that knows one of them gives itself.

        Raises:
            MachineError: the form cannot run here.
        """
        ...

    def setting_up(self, shapes: Shapes) -> float:
        """Seconds that making ready for such windows takes at least; 0: what it takes is there, or kept."""
        ...

    def forget(self) -> None:
        """Load anew, at the next call, what was made of the network and is kept."""
        ...

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """Predict.

        Args:
            windows: one (n, band, y, x) tensor of raw digital numbers a band group, on `device`.

        Returns:
            (n, c, y, x) scores on `device`, of any floating type and memory layout: logits or probabilities
            as the card says.

        Raises:
            ModelError: the network fails, or gives something else.
        """
        ...


@dataclass(frozen=True, slots=True)
class FunctionPredictor:
    """A predictor made of a function: the fake beside the protocol."""

    card: ModelCard
    function: Callable[..., Tensor]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def at(self, precision: Precision, form: Form = "torchscript") -> FunctionPredictor:  # noqa: ARG002 - the protocol's
        """Itself: a function computes as it does."""
        return self

    def setting_up(self, shapes: Shapes) -> float:  # noqa: ARG002 - the protocol's
        """Nothing is made of a function."""
        return 0.0

    def forget(self) -> None:
        """Nothing is."""

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """Call the function with one tensor a band group."""
        return run_network(self.function, windows, self.card)


@dataclass(frozen=True, slots=True, eq=False)
class ModelPredictor:
    """The network of a model file on a device, in one precision and one form."""

    card: ModelCard
    device: torch.device
    network: Callable[..., Tensor] = field(repr=False)
    """As torch runs it, in fp32, whatever form and precision: the predictors of all of them share it."""
    precision: Precision = "fp32"
    runs: Mapping[tuple[Form, Precision], ConvertedNetwork] = field(default_factory=dict, repr=False)
    """The network in other forms than torch's, by form and precision; what is not called is not made."""
    form: Form = "torchscript"
    stop: Stop = field(default=None, repr=False)
    """Ends what takes long, if it is set: of one run, and not shared."""

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device,
        precision: Precision = "fp32",
        sha256: str | None = None,
    ) -> ModelPredictor:
        """Load the network onto the device.

        Args:
            path: of the model file.
            device: that it is loaded onto.
            precision: that it computes in.
            sha256: that the file must have; None: any.

        Raises:
            ModelError: the file is no model, has no card, or is not trusted.
            MachineError: the network does not fit into the memory of the device.
        """
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # else torch's convolutions call 10 bits of mantissa fp32
        try:
            network, file = load_model(path, device, sha256)
        except torch.OutOfMemoryError:
            raise MachineError(f"model {path} does not fit into the memory of {device}") from None
        source = Source(file.card.name, file.sha256, network)
        runs = {
            (form, one): ConvertedNetwork(source, runtime, one)
            for form, runtime in _CONVERTED.items() for one in PRECISIONS
        }  # fmt: skip
        return cls(file.card, device, network, precision, runs)

    def at(self, precision: Precision, form: Form = "torchscript") -> ModelPredictor:
        """The same network, not copied, in a precision and a form."""
        check_form(form, self.device.type)
        if precision == "tf32" and self.device.type != "cuda":
            raise MachineError(
                f"tf32 is a precision of CUDA devices, and this is {self.device}; give --precision auto"
            )
        if precision not in precisions_of(form):
            offered = ", ".join(precisions_of(form))
            raise MachineError(
                f"--form {form} computes in {offered}, not in {precision}; give one of them as --precision"
            )
        return replace(self, precision=precision, form=form)

    @property
    def _converted(self) -> ConvertedNetwork | None:
        """What runs, where that is not torch."""
        return None if self.form == "torchscript" else self.runs[self.form, self.precision]

    def setting_up(self, shapes: Shapes) -> float:
        """Torch needs nothing made; other forms do, once for each shape of windows."""
        return 0.0 if self._converted is None else self._converted.setting_up(shapes, self.device)

    def forget(self) -> None:
        """Load anew, at the next call, what another form than torch's has kept."""
        if self._converted is not None:
            self._converted.forget()

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """Run the network, in the form and the precision that were chosen.

        Raises:
            StoppedError: `stop` is set: of all trials of a run, the one in hand is the last.
        """
        if self.stop is not None and self.stop.is_set():
            raise StoppedError
        if self._converted is not None:
            return run_network(partial(self._converted, stop=self.stop), windows, self.card)
        with torch.inference_mode(), autocast(self.device, self.precision):
            return run_network(self.network, windows, self.card)


_: tuple[type[Predictor], ...] = (FunctionPredictor, ModelPredictor)
