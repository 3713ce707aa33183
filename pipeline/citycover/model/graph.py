"""A network as one straight line of operators, for windows of one shape: what other runtimes can take.

TorchScript keeps what a network asks about its input (`if x.size(2) % 32`), which no other runtime answers.
The network is run once on tensors that have a shape and no numbers, and each operator that it reaches is
written down: what depends on shapes alone is decided then, and what depends on numbers cannot be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor

from citycover.model.autocast import autocast
from citycover.model.precision import Precision

_NOT_WRITTEN = ("prim::GetAttr", "prim::SetAttr", "prim::RaiseException", "prim::PythonOp")
"""What a line of operators does not hold, beside calls."""


def is_straight(network: Callable[..., Tensor]) -> TypeGuard[torch.jit.ScriptModule]:
    """Whether a network is one line of operators as it is: a frozen module that asks nothing of its input.

    torch's tracer would give the same operators, but to import it takes more than a second of a processor,
    and all else until OpenVINO has a network half a one.
    """
    return isinstance(network, torch.jit.ScriptModule) and not any(
        any(True for _ in node.blocks()) or node.kind() in _NOT_WRITTEN or "::Call" in node.kind()
        for node in network.graph.nodes()
    )


def straight_graph(network: Callable[..., Tensor], windows: Sequence[Tensor]) -> torch.jit.ScriptModule:
    """The operators that a network runs for windows of these shapes and types, as TorchScript names them.

    Args:
        network: of a model file, on the processor.
        windows: one (n, band, y, x) tensor a band group; only shapes and types count.

    Raises:
        RuntimeError: it asks about numbers, or does what cannot be written down.
    """
    if is_straight(network):
        return network
    with _tracing():
        return scripted(_line(_unrun(network), windows, whole=True))


def traced(
    network: Callable[..., Tensor], windows: Sequence[Tensor], precision: Precision
) -> torch.fx.GraphModule:
    """The operators that torch runs in a precision for such windows, casts among them; scores are float32.

    Args:
        network: of a model file.
        windows: one (n, band, y, x) tensor a band group, on the network's device.
        precision: that autocast would compute in.

    Raises:
        RuntimeError: the network asks about numbers, or does what cannot be written down.
    """
    unrun = _unrun(network)

    def scored(*given: Tensor) -> Tensor:
        return unrun(*given).float()

    with _tracing(), autocast(windows[0].device, precision):
        return _line(scored, windows, whole=False)


def scripted(line: torch.fx.GraphModule) -> torch.jit.ScriptModule:
    """A line of operators as a frozen TorchScript module; `line` is used up."""
    from torch._ops import OpOverload

    with _tracing():
        for node in line.graph.nodes:
            if isinstance(node.target, OpOverload):
                node.target = node.target.overloadpacket
        line.recompile()
        module: torch.jit.ScriptModule = torch.jit.freeze(torch.jit.script(line.eval()))
    return module


def straight_program(
    network: Callable[..., Tensor], windows: Sequence[Tensor], precision: Precision = "fp32"
) -> torch.export.ExportedProgram:
    """The same as an exported program, in which the casts of a reduced precision are operators, too.

    Args:
        network: of a model file.
        windows: one (n, band, y, x) tensor a band group, on the network's device, in the memory layout in
            which the program will be given them.
        precision: that autocast would compute in; scores are float32 in any.

    Raises:
        RuntimeError: it asks about numbers, or does what cannot be written down.
    """
    found = traced(network, windows, precision)
    with _tracing():
        return torch.export.export(found, tuple(windows))


def _line(function: Callable[..., Tensor], windows: Sequence[Tensor], *, whole: bool) -> torch.fx.GraphModule:
    """The operators as a graph; whole as networks call them, or what they and autocast make of them."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def called(*given: Tensor) -> Tensor:  # a frozen module is no function, which is asked for
        return function(*given)

    trace = make_fx(called, tracing_mode="fake", pre_dispatch=whole, _allow_non_fake_inputs=True)
    return trace(*windows)


def _unrun(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same network as if it had not run: what torch has fused since takes no tensor without numbers."""
    if not isinstance(network, torch.jit.ScriptModule):
        return network
    graph = network.graph.copy()
    own = next(graph.inputs())
    if own.uses():  # not frozen
        return network
    graph.eraseInput(0)
    copied: Callable[..., Tensor] = torch._C._create_function_from_graph("forward", graph)  # noqa: SLF001 - no public word
    return copied


@contextmanager
def _tracing() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.jit.optimized_execution(should_optimize=False),  # type: ignore[attr-defined]  # public, not exported
    ):
        warnings.simplefilter("ignore")  # of torch, about torch
        yield
