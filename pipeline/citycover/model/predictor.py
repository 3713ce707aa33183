"""Predictor: raw windows in, probabilities out. The only place that knows model formats and precision.

TorchScript runs frozen, in channels_last and in inference mode; reduced precision is eager autocast around
the frozen module, which works for any file. Another form is made of that module when it is first asked for.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
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
from citycover.model.entropy import entropy
from citycover.model.form import Form, check_form, precisions_of
from citycover.model.joint import MapModel, Turns
from citycover.model.network import load_model
from citycover.model.openvino import OpenVino
from citycover.model.precision import PRECISIONS, Precision
from citycover.model.tensorrt import TensorRt

logger = logging.getLogger(__name__)

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


Turn = tuple[bool, tuple[int, ...]]
"""Whether rows and columns change places, and which axes are flipped after it."""

_FLIPS: tuple[Turn, ...] = ((False, ()), (False, (3,)), (False, (2,)), (False, (2, 3)))

_TURNS: dict[Turns, tuple[Turn, ...]] = {
    "none": _FLIPS[:1],
    "flips": _FLIPS,
    "d4": (*_FLIPS, *((True, axes) for _, axes in _FLIPS)),
}


@dataclass(frozen=True, slots=True, eq=False)
class JointPredictor:
    """Several networks, or one that sees each window turned, too: their mean probabilities.

    How far they differ is the mutual information between the class of a pixel and the member that is asked,
    that is the Jensen-Shannon divergence of what members say, weighed as they are: the entropy of the mean
    less the mean of entropies. Members are networks times turns, N in all; it is divided by the logarithm of
    the smaller of N and the number of classes, so that 1 means that each is certain, and of another class.
    Where a pixel may be of several classes it is the mean over them. Sources: Lin, IEEE Transactions on
    Information Theory 37(1), 1991; as a measure of what models do not know: Smith & Gal, UAI 2018.
    """

    card: ModelCard
    device: torch.device
    parts: tuple[tuple[Predictor, float, Tensor], ...]
    """Networks, weights, and the place of each of their channels in the joint map."""
    turns: tuple[Turn, ...]
    telling: bool = False
    """Whether one channel more, behind the classes, has the disagreement."""

    def with_disagreement(self) -> JointPredictor:
        """The same networks, which tell how far they differ."""
        return replace(self, telling=True)

    def at(self, precision: Precision, form: Form = "torchscript") -> JointPredictor:
        """The same networks in a precision and a form."""
        parts = tuple(
            (predictor.at(precision, form), weight, ranks) for predictor, weight, ranks in self.parts
        )
        return replace(self, parts=parts)

    def setting_up(self, shapes: Shapes) -> float:
        """Of all networks together, for windows as they lie and as they are turned."""
        seen = {_turned_shapes(shapes, turn) for turn in self.turns}
        return sum(predictor.setting_up(one) for predictor, _, _ in self.parts for one in seen)

    def forget(self) -> None:
        """Of all networks."""
        for predictor, _, _ in self.parts:
            predictor.forget()

    def __call__(self, windows: Sequence[Tensor]) -> Tensor:
        """(n, c, y, x) float32 mean probabilities: always in the same order, so always the same.

        Where they tell of it, (n, c + 1, y, x) with the disagreement last.
        """
        total: Tensor | None = None
        single: Tensor | float = 0.0
        for turn in self.turns:
            turned = [_turned(window, turn) for window in windows]
            for predictor, weight, ranks in self.parts:
                probabilities = to_probabilities(predictor(turned), predictor.card)
                with torch.inference_mode():
                    back = _turned_back(probabilities, turn)
                    if total is None:
                        shape = (len(back), len(self.card.channels), *back.shape[2:])
                        total = torch.zeros(shape, device=self.device)
                    share = weight / len(self.turns)
                    total.index_add_(1, ranks, back, alpha=share)
                    if self.telling:
                        alone = torch.zeros_like(total).index_add_(1, ranks, back)
                        single = single + share * self._entropy(alone)  # (n, y, x)
        assert total is not None, "there is a network, and a turn"
        return self._with_disagreement(total, single) if self.telling else total

    def _entropy(self, probabilities: Tensor) -> Tensor:
        """(n, y, x) 0 to 1, of (n, c, y, x)."""
        return entropy(probabilities.view(torch.int32).unbind(1), self.card.task == "classes")

    @torch.inference_mode()
    def _with_disagreement(self, mean: Tensor, single: Tensor | float) -> Tensor:
        """Mean probabilities, and behind them how far members differ, by the mean of their entropies."""
        classes = len(self.card.channels) if self.card.task == "classes" else 2
        most = math.log(min(classes, len(self.parts) * len(self.turns))) / math.log(classes)
        apart = ((self._entropy(mean) - single) / most).clamp_(0, 1)
        return torch.cat([mean, apart[:, None]], 1)


def _turned_shapes(shapes: Shapes, turn: Turn) -> Shapes:
    """Of windows that a network sees turned."""
    swaps, _ = turn
    return tuple(((*shape[:-2], shape[-1], shape[-2]), kind) for shape, kind in shapes) if swaps else shapes


def _turned(window: Tensor, turn: Turn) -> Tensor:
    """(n, band, y, x) as a network sees it; turned by nothing, the window itself is not given away."""
    swaps, axes = turn
    seen = window.transpose(2, 3) if swaps else window
    return seen.flip(axes).contiguous(memory_format=torch.channels_last)


def _turned_back(scores: Tensor, turn: Turn) -> Tensor:
    swaps, axes = turn
    straight = scores.flip(axes) if axes else scores
    return straight.transpose(2, 3) if swaps else straight


_last: dict[tuple[MapModel, torch.device], tuple[ModelPredictor, ...]] = {}
"""The networks of the map before, with what was made of them: torch takes as long to make ready anew as a
small scene takes to map."""

_loading = threading.Lock()


def load_predictor(model: MapModel, device: torch.device, stop: Stop = None) -> Predictor:
    """All networks of a map on a device, in fp32 and as torch runs them.

    Those of the last map are kept in the process, whoever asks, and no others: devices are small.

    Args:
        model: what maps.
        device: that it is loaded onto.
        stop: ends what takes long for who asks, if it is set: networks are compiled when they first run in
            some forms.

    Raises:
        ModelError: a file is no model any more, or another one.
        MachineError: they do not fit into the memory of the device.
    """
    with _loading:
        if (model, device) not in _last:
            _last.clear()  # before others take their place
            _last[model, device] = tuple(
                ModelPredictor.load(member.path, device, sha256=member.sha256) for member in model.members
            )
            logger.info("loaded the network in process %d on %s", os.getpid(), socket.gethostname())
        loaded = [replace(one, stop=stop) for one in _last[model, device]]
    if model.alone:
        return loaded[0]
    parts = tuple(
        (predictor, member.weight, torch.tensor(member.ranks, device=device))
        for predictor, member in zip(loaded, model.members, strict=True)
    )
    return JointPredictor(model.card, device, parts, _TURNS[model.turns])


_: tuple[type[Predictor], ...] = (FunctionPredictor, ModelPredictor, JointPredictor)


def _with_background(scores: Tensor, card: ModelCard, own: Tensor) -> Tensor:
    """One channel (n, 1, y, x) of scores and its absence, in the order of the card's channels, into `own`."""
    absent = card.channels.index(card.background)
    present = own[:, 1 - absent]  # (n, y, x)
    present.copy_(scores[:, 0])
    if card.activation == "logits":
        present.sigmoid_()
    torch.sub(1, present, out=own[:, absent])
    return own


_ROWS = 64
"""That are laid out plane by plane together: of whole planes, which lie far apart, no cache holds enough."""


def to_probabilities(scores: Tensor, card: ModelCard, out: Tensor | None = None) -> Tensor:
    """(n, c, y, x) scores of any type and layout to planar float32 probabilities, the caller's own.

    One copy, and all else in place: a second tensor of this size costs more than the arithmetic.

    Args:
        scores: logits or probabilities, as the card says.
        card: of the network that gave them.
        out: memory for the result; None: new.
    """
    channels = scores.shape[1] if card.background is None else 2
    shape = (len(scores), channels, *scores.shape[2:])
    own = torch.empty(shape, dtype=torch.float32, device=scores.device) if out is None else out
    if card.background is not None:
        return _with_background(scores, card, own)
    rows = _ROWS if own.device.type == "cpu" else own.shape[2]
    for first in range(0, own.shape[2], rows):
        own[:, :, first : first + rows].copy_(scores[:, :, first : first + rows])
    if card.activation == "probabilities":
        return own
    if card.task == "labels":
        return own.sigmoid_()
    return torch.softmax(own, 1, out=own)
