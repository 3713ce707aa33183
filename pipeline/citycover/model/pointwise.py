"""Convolutions of one pixel, computed alike by any number of threads.

With one thread torch leaves a convolution of 1 x 1 to its own matrix product, with several to oneDNN, unless
there is a dilation (`ConvParams::use_mkldnn` in ATen/native/Convolution.cpp): the sums are rounded in another
order, and a map would depend on how many workers share the cores. A dilation means nothing to a kernel of one
pixel, so each is given one. With one thread that is no slower.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch.fx import GraphModule

_SCRIPTED = ("aten::conv2d", "aten::_convolution")

_EXPORTED = (torch.ops.aten.conv2d.default, torch.ops.aten.convolution.default)

_WEIGHT, _DILATION = 1, 5
"""Which argument of all of them."""

_LEFT_OUT = (None, None, None, [1, 1], [0, 0], [1, 1])
"""Arguments as exported programs mean them that leave them out: bias, stride, padding, dilation."""


def pin_scripted(graph: Any) -> None:
    """Give each convolution of 1 x 1 in the graph of a frozen TorchScript network a dilation; in place."""
    for node in (node for kind in _SCRIPTED for node in graph.findAllNodes(kind)):
        weight = list(node.inputs())[_WEIGHT].toIValue()
        if isinstance(weight, torch.Tensor) and weight.shape[2:] == (1, 1):
            with graph.insert_point_guard(node):
                node.replaceInput(_DILATION, graph.insertConstant([2, 2]))


def pin_exported(module: GraphModule) -> None:
    """The same in the graph of an exported program."""
    for node in module.graph.nodes:
        if node.target not in _EXPORTED:
            continue
        weight = node.args[_WEIGHT]
        if weight.op == "get_attr" and attrgetter(weight.target)(module).shape[2:] == (1, 1):
            given = [*node.args, *_LEFT_OUT[len(node.args) :]]
            given[_DILATION] = [2, 2]
            node.args = tuple(given)
    module.recompile()
