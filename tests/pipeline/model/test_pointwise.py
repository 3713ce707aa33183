"""Convolutions of one pixel: the same numbers by one thread and by several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from citycover.model.network import load_exported, load_fast_torchscript
from citycover.model.pointwise import pin_scripted


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Network(nn.Module):
    """Each kind of convolution, one of them in a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.apart = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 64, 1, 2, groups=2)
        self.one, self.plain, self.last = (
            nn.Conv2d(64, 64, 1),
            nn.Conv2d(64, 64, 1, bias=False),
            nn.Conv2d(64, 5, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(self.one(self.apart(self.wide(x))).relu())
        if x.shape[2] > 1:
            x = self.last(x)
        return x


def save(network: nn.Module, path: Path, *, exported: bool) -> Path:
    if exported:
        torch.export.save(torch.export.export(network, (WINDOWS,)), path)
    else:
        torch.jit.save(torch.jit.script(network), path)
    return path


WINDOWS = torch.rand(2, 16, 64, 64, generator=torch.Generator().manual_seed(0)).contiguous(
    memory_format=torch.channels_last
)


@pytest.mark.parametrize("exported", [False, True])
def test_one_thread_says_what_two_say(tmp_path: Path, exported: bool) -> None:
    torch.manual_seed(0)
    network = Network().eval()
    path = save(network, tmp_path / ("a.pt2" if exported else "a.pt"), exported=exported)
    loaded = (load_exported if exported else load_fast_torchscript)(path, "cpu")
    said = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            said.append(loaded(WINDOWS))
            wanted = network(WINDOWS)
    assert torch.equal(*said)
    torch.testing.assert_close(said[0], wanted)


def test_kernels_of_one_pixel_alone_get_a_dilation() -> None:
    frozen = torch.jit.freeze(torch.jit.script(Network().eval()))
    pin_scripted(frozen.graph)
    found = [list(node.inputs()) for node in frozen.graph.findAllNodes("aten::conv2d")]
    assert [(tuple(i[1].toIValue().shape[2:]), i[5].toIValue()) for i in found] == [
        ((3, 3), [1, 1]), ((1, 1), [2, 2]), ((1, 1), [2, 2]), ((1, 1), [2, 2]), ((1, 1), [2, 2]),
    ]  # fmt: skip
