"""A network run by OpenVINO, on a processor: converted once, and compiled for each shape of windows.

OpenVINO's own converter asks its maker's servers to count its users; citycover asks nobody, so the package
that would do it is kept out when OpenVINO is imported, and the converter is not used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from citycover.model.converted import Infer, Runtime, Source, Stop
from citycover.model.form import Form
from citycover.model.graph import is_straight, straight_graph
from citycover.model.precision import Precision

_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

_TELEMETRY = "openvino_telemetry"

_NETWORK = "network.xml"


@dataclass(frozen=True, slots=True)
class OpenVino:
    """Converts once for all precisions, and compiles when it loads."""

    name: str = "OpenVINO"
    form: Form = "openvino"

    def facts(self, device: torch.device, precision: Precision) -> dict[str, Any]:  # noqa: ARG002 - the protocol's
        """Nothing more: what is kept is the same for any processor."""
        return {}

    def making(self, network: Callable[..., Tensor]) -> float:
        """The library is loaded and the network converted; torch's tracer takes more."""
        return 0.5 if is_straight(network) else 2.0

    def make(
        self,
        source: Source,
        windows: Sequence[Tensor],
        precision: Precision,  # noqa: ARG002 - the protocol's
        folder: Path,
        stop: Stop,  # noqa: ARG002 - it takes a second
    ) -> None:
        """Write the network as OpenVINO has it."""
        _convert(straight_graph(source.network, windows), windows, folder)

    def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:  # noqa: ARG002 - the protocol's
        """Compile it for this processor and so many threads."""
        request = _compile(_core().read_model(folder / _NETWORK), precision)
        return lambda given: _infer(request, given)


_: type[Runtime] = OpenVino


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


def _convert(graph: torch.jit.ScriptModule, windows: Sequence[Tensor], folder: Path) -> None:
    """Write a graph for windows of these shapes, (n, y, x, band) in memory, into a folder."""
    openvino = _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

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
