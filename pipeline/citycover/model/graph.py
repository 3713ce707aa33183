"""A network as one straight line of operators, for windows of one shape: what other runtimes can take.

TorchScript keeps what a network asks about its input (`if x.size(2) % 32`), which no other runtime answers.
The network is run once on tensors that have a shape and no numbers, and each operator that it reaches is
written down: what depends on shapes alone is decided then, and what depends on numbers cannot be.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def straight_graph(network: Callable[..., Tensor], windows: Sequence[Tensor]) -> torch.jit.ScriptModule:
    """The operators that a network runs for windows of these shapes and types, without numbers being run.

    Args:
        network: of a model file, on the processor.
        windows: one (n, band, y, x) tensor a band group; only shapes and types count.

    Raises:
        RuntimeError: it asks about numbers, or does what cannot be written down.
    """
    from torch._ops import OpOverload
    from torch.fx.experimental.proxy_tensor import make_fx

    def called(*given: Tensor) -> Tensor:  # a frozen module is no function, which is asked for
        return network(*given)

    trace = make_fx(called, tracing_mode="fake", pre_dispatch=True, _allow_non_fake_inputs=True)
    with (
        warnings.catch_warnings(),
        torch.inference_mode(mode=False),
        torch.no_grad(),
        torch.jit.optimized_execution(should_optimize=False),  # type: ignore[attr-defined]  # public, not exported
    ):
        warnings.simplefilter("ignore")  # of torch, about torch
        found = trace(*windows)
        for node in found.graph.nodes:
            if isinstance(node.target, OpOverload):
                node.target = node.target.overloadpacket  # as TorchScript names operators
        found.recompile()
        straight: torch.jit.ScriptModule = torch.jit.freeze(torch.jit.script(found.eval()))
    return straight
