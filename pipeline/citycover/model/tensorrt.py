"""A network run by TensorRT on CUDA devices, by way of ONNX and ONNX Runtime.

ONNX Runtime would go on with a slower provider, on a processor at last, where TensorRT is not to be had or
does not take an operator. That is refused here: who asks for TensorRT gets it, or is told why not.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citycover.machine.device import device_facts
from citycover.model.converted import Infer, Runtime, Source, Stop
from citycover.model.form import Form, tensorrt_version
from citycover.model.graph import straight_program
from citycover.model.precision import Precision

_NETWORK = "network.onnx"

_NUMBERS = {torch.uint8: np.uint8, torch.float32: np.float32}
"""Types of windows, as ONNX Runtime is told of them."""

Provider = tuple[str, dict[str, str]]
"""What of ONNX Runtime computes, and its options."""


def tensorrt_provider(folder: Path, device: torch.device, precision: Precision) -> Provider:
    """TensorRT, which puts the engine that it builds into a folder, or takes it from there.

    The precision is in the operators already; TensorRT before version 11 wants to be allowed it, too.
    """
    return "TensorrtExecutionProvider", {
        "device_id": str(device.index or 0),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_bf16_enable": str(int(precision == "bf16")),
    }


@dataclass(frozen=True, slots=True)
class TensorRt:
    """Converts and builds an engine for one device and one precision."""

    name: str = "TensorRT"
    form: Form = "tensorrt"
    provider: Callable[[Path, torch.device, Precision], Provider] = tensorrt_provider
    """What computes; tests, which have no GPU, put a processor in its place."""

    def facts(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        """The device, TensorRT and the precision."""
        return {"device": device_facts(device), "tensorrt": tensorrt_version(), "precision": precision}

    def making(self, network: Callable[..., Tensor]) -> float:  # noqa: ARG002 - the protocol's
        """Kernels are tried on the device."""
        return 30.0

    def make(
        self,
        source: Source,
        windows: Sequence[Tensor],
        precision: Precision,
        folder: Path,
        stop: Stop,  # noqa: ARG002 - TensorRT cannot be asked to leave off
    ) -> None:
        """Write the network as ONNX, and beside it the engine that the provider builds of it.

        Raises:
            RuntimeError: there is no such provider, or it does not take the whole network.
        """
        _convert(source.network, windows, precision, folder / _NETWORK)
        self._session(folder, windows[0].device, precision)

    def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:
        """A session with the engine that was built."""
        session = self._session(folder, windows[0].device, precision)
        return lambda given: _infer(session, given)

    def _session(self, folder: Path, device: torch.device, precision: Precision) -> Any:
        provider = self.provider(folder, device, precision)
        return _open(folder / _NETWORK, provider)


_: type[Runtime] = TensorRt


def _convert(
    network: Callable[..., Tensor], windows: Sequence[Tensor], precision: Precision, path: Path
) -> None:
    """Write the network for windows of these shapes, (n, y, x, band) in memory, as ONNX."""

    def of_rows(*rows: Tensor) -> Tensor:
        return network(*(row.permute(0, 3, 1, 2) for row in rows))

    program = straight_program(of_rows, [_rows(window) for window in windows], precision)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which packages it does without
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about torch
        converted = torch.onnx.export(program, dynamo=True, verbose=False)
    assert converted is not None, "dynamo gives a program"
    converted.save(path)


def _open(path: Path, provider: Provider) -> Any:
    """A session in which the provider computes everything.

    Raises:
        RuntimeError: it cannot.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    if provider[0] != "CPUExecutionProvider":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        with contextlib.suppress(ImportError):
            import tensorrt  # noqa: F401 - its libraries are found where they were installed with it
    session = onnxruntime.InferenceSession(path, options, providers=[provider], enable_fallback=0)
    session.disable_fallback()
    if (there := session.get_providers()[0]) != provider[0]:
        raise RuntimeError(
            f"ONNX Runtime {onnxruntime.__version__} has {there} instead of {provider[0]} (is TensorRT of "
            "the version that it was built for installed?)"
        )
    return session


def _infer(session: Any, windows: Sequence[Tensor]) -> Tensor:
    """Scores, with nothing copied between device and processor: both sides are bound where they lie."""
    device, binding = windows[0].device, session.io_binding()
    rows = [_rows(window) for window in windows]
    for given, row in zip(session.get_inputs(), rows, strict=True):
        binding.bind_input(given.name, *_place(device), _NUMBERS[row.dtype], tuple(row.shape), row.data_ptr())
    (told,) = session.get_outputs()
    scores = torch.empty(tuple(told.shape), device=device)
    binding.bind_output(told.name, *_place(device), np.float32, tuple(scores.shape), scores.data_ptr())
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # ONNX Runtime computes in a stream of its own
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    return scores


def _place(device: torch.device) -> tuple[str, int]:
    return device.type, device.index or 0


def _rows(window: Tensor) -> Tensor:
    """(n, y, x, band): of windows in channels_last the same memory."""
    return window.permute(0, 2, 3, 1).contiguous()
