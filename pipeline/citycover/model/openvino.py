"""A network run by OpenVINO, on a processor: converted once, and compiled for each shape of windows.

OpenVINO's own converter asks its maker's servers to count its users; citycover asks nobody, so the package
that would do it is kept out when OpenVINO is imported, and the converter is not used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from citycover.errors import CitycoverError, ModelError
from citycover.model.compiled import Artefact, kept
from citycover.model.form import runtime_of
from citycover.model.graph import straight_graph
from citycover.model.network import last_line
from citycover.model.precision import Precision
from citycover.version import __version__

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

_TELEMETRY = "openvino_telemetry"

_NETWORK = "network.xml"

_SHAPES = 2
"""Shapes that are ready at a time: a run has one, and its transpose where windows are turned."""

Shapes = tuple[tuple[tuple[int, ...], str], ...]
"""Shape and type of each band group's windows."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenVinoNetwork:
    """A network in a precision: windows in, scores out, as by the network. It is made at its first call."""

    name: str
    """Of the model, for people."""
    sha256: str
    """Of the model file."""
    network: Callable[..., Tensor] = field(repr=False)
    """As torch runs it; asked for its operators once."""
    precision: Precision = "fp32"
    requests: dict[tuple[Shapes, int], Any] = field(default_factory=dict, repr=False)
    """What runs windows of a shape with a number of threads."""

    def __call__(self, *windows: Tensor) -> Tensor:
        """(n, c, y, x) scores, planar and the caller's own.

        Raises:
            ModelError: OpenVINO does not take the network.
        """
        shapes = tuple((tuple(w.shape), str(w.dtype).removeprefix("torch.")) for w in windows)
        key = shapes, torch.get_num_threads()
        if key not in self.requests:
            if len(self.requests) == _SHAPES:
                del self.requests[next(iter(self.requests))]  # of those that were tried before the run
            self.requests[key] = self._request(windows, shapes)
        return _infer(self.requests[key], windows)

    def _request(self, windows: Sequence[Tensor], shapes: Shapes) -> Any:
        try:
            return _compile(self._converted(windows, shapes), self.precision)
        except CitycoverError:
            raise
        except Exception as error:
            raise ModelError(
                f"OpenVINO cannot run the network of {self.name!r}: {last_line(error)}; "
                "give --form torchscript"
            ) from error

    def _converted(self, windows: Sequence[Tensor], shapes: Shapes) -> Any:
        """The network as OpenVINO has it: kept from an earlier run, or converted now."""
        artefact = Artefact.of(
            model=self.sha256, shapes=shapes, runtime=runtime_of("openvino"), torch=torch.__version__,
            citycover=__version__,
        )  # fmt: skip
        with kept(artefact, lambda into: _convert(self.network, windows, into)) as folder:
            return _core().read_model(folder / _NETWORK)


def _openvino() -> Any:
    """The package, imported without what would call home."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    calls_home = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it fails, which openvino expects
    try:
        import openvino
    finally:
        del sys.modules[_TELEMETRY]
        if calls_home is not None:
            sys.modules[_TELEMETRY] = calls_home
    return openvino


@cache
def _core() -> Any:
    """The one of this process, for as long as it lives.

    Its first use gives the thread a stack for signals; its end, in another thread, would unmap that stack,
    and the next signal end the process.
    """
    return _openvino().Core()


def _convert(network: Callable[..., Tensor], windows: Sequence[Tensor], folder: Path) -> None:
    """Write the network for windows of these shapes, (n, y, x, band) in memory, into a folder."""
    openvino = _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    graph = straight_graph(network, windows)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(graph, skip_freeze=True)  # held until it is converted
    model = frontend.convert(frontend.load(decoder))
    for given, window in zip(model.inputs, windows, strict=True):
        given.get_node().set_element_type(openvino.Type(window[:0].numpy().dtype))
        given.get_node().set_partial_shape(openvino.PartialShape(list(window.shape)))
    model.validate_nodes_and_infer_types()
    steps = PrePostProcessor(model)
    for index in range(len(windows)):
        steps.input(index).tensor().set_layout(openvino.Layout("NHWC"))
        steps.input(index).model().set_layout(openvino.Layout("NCHW"))
    steps.output().tensor().set_element_type(openvino.Type.f32)
    openvino.save_model(steps.build(), folder / _NETWORK, compress_to_fp16=False)


def _compile(model: Any, precision: Precision) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,  # one batch after the other, by all threads
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # the processor is shared with threads that read and write
    }
    return _core().compile_model(model, "CPU", options).create_infer_request()


def _infer(request: Any, windows: Sequence[Tensor]) -> Tensor:
    tensor = _openvino().Tensor
    for index, window in enumerate(windows):
        rows = window.permute(0, 2, 3, 1).contiguous()  # no copy of windows in channels_last
        request.set_input_tensor(index, tensor(rows.numpy(), shared_memory=True))
    scores = torch.empty(tuple(request.model_outputs[0].shape))
    request.set_output_tensor(0, tensor(scores.numpy(), shared_memory=True))
    request.infer()
    return scores
