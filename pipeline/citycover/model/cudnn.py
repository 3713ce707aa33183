"""A network as torch runs it on CUDA devices, but for what follows convolutions: cuDNN does that with them.

By torch alone a convolution, its bias, what is added to it and the ReLU are four kernels, each of which reads
and writes all that the convolution gave: of a ResNet in bf16, half of the time. cuDNN has one kernel for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, Node

from citycover.machine.device import device_facts
from citycover.model.autocast import autocast
from citycover.model.converted import Infer, Runtime, Source, Stop
from citycover.model.form import Form
from citycover.model.graph import scripted, traced
from citycover.model.precision import Precision

_NETWORK = "network.pt"

_ATEN = torch.ops.aten

_RELU = (_ATEN.relu.default, _ATEN.relu_.default)

_ADD = (_ATEN.add.Tensor, _ATEN.add_.Tensor)

_PLAIN = 6
"""Arguments of a convolution before what tells a transposed one: input, weight, bias, and how it moves."""


@dataclass(frozen=True, slots=True)
class CuDnn:
    """Writes the network down for one precision, convolutions and what follows them as one operator."""

    name: str = "cuDNN"
    form: Form = "cudnn"

    def facts(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        """The device, by its number, too, which stands where tensors are made; and the precision."""
        return {"device": device_facts(device), "index": device.index or 0, "precision": precision}

    def making(self, network: Callable[..., Tensor]) -> float:  # noqa: ARG002 - the protocol's
        """Torch's tracer is loaded, and writes the network down."""
        return 5.0

    def make(
        self,
        source: Source,
        windows: Sequence[Tensor],
        precision: Precision,
        folder: Path,
        stop: Stop,  # noqa: ARG002 - it takes seconds
    ) -> None:
        """Write the network as a TorchScript module."""
        line = traced(source.network, windows, precision)
        join_convolutions(line.graph)
        torch.jit.save(scripted(line), folder / _NETWORK)

    def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:
        """The module, of which torch fuses nothing more; run once, for cuDNN may have no kernel for it."""
        device = windows[0].device
        network = torch.jit.load(folder / _NETWORK, map_location=device)

        def infer(given: Sequence[Tensor]) -> Tensor:
            with (
                torch.inference_mode(),
                torch.jit.optimized_execution(should_optimize=False),  # type: ignore[attr-defined]  # public, not exported
                autocast(device, "tf32" if precision == "tf32" else "fp32"),
            ):
                scores: Tensor = network(*given)
            return scores

        infer(windows)
        return infer


_: type[Runtime] = CuDnn


def join_convolutions(graph: Graph) -> None:
    """Have convolutions compute their ReLU and what is added before it, where nobody else looks between."""
    for relu in [node for node in graph.nodes if node.target in _RELU]:
        before = relu.args[0]
        found = (before, None) if _is_joinable(before) else _summands(before)
        if found is None:
            continue
        conv, other = found
        image, weight, bias, *moves = conv.args[:_PLAIN]
        with graph.inserting_before(before):
            joined = (
                graph.call_function(_ATEN.cudnn_convolution_relu.default, (image, weight, bias, *moves, 1))
                if other is None
                else graph.call_function(
                    _ATEN.cudnn_convolution_add_relu.default, (image, weight, other, 1.0, bias, *moves, 1)
                )
            )
        joined.meta = dict(relu.meta)
        relu.replace_all_uses_with(joined)
        for node in dict.fromkeys((relu, before, conv)):
            graph.erase_node(node)


def _is_joinable(node: Node) -> bool:
    """Whether it is a convolution of which cuDNN makes more, and that one operator alone looks at.

    That is one of two dimensions and of one group, not transposed.
    """
    if node.target is not _ATEN.convolution.default or len(node.users) > 1:
        return False
    *_, transposed, _, groups = node.args
    return bool(node.meta["val"].ndim == 4 and not transposed and groups == 1)


def _summands(node: Node) -> tuple[Node, Node] | None:
    """The convolution of a sum that is looked at once, and what is added to it; None: it is no such sum."""
    if node.target not in _ADD or node.kwargs or len(node.users) > 1:
        return None
    one, two = node.args
    if not isinstance(one, Node) or not isinstance(two, Node) or one is two:
        return None
    own = (one,) if node.target is _ATEN.add_.Tensor else (one, two)  # the first is what is written into
    for conv, other in zip(own, (two, one), strict=False):
        if _is_joinable(conv) and _of_one_kind(conv, other) and not _is_written_between(conv, node):
            return conv, other
    return None


def _of_one_kind(one: Node, two: Node) -> bool:
    here, there = one.meta["val"], two.meta["val"]
    return (here.shape, here.dtype) == (there.shape, there.dtype)


def _is_written_between(first: Node, last: Node) -> bool:
    """Whether anything works in place between two operators: what the first has read may be another then."""
    node = first.next
    while node is not last:
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:  # noqa: SLF001 - no public word
            return True
        node = node.next
    return False
