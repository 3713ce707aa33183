"""A network whose convolutions compute what follows them, by operators that a processor stands in for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
from cudnn_operators import cudnn_by_processor
from torch import Tensor, nn

from citycover.errors import MachineError, ModelError
from citycover.model import cudnn
from citycover.model.autocast import autocast
from citycover.model.converted import ConvertedNetwork, Source
from citycover.model.cudnn import CuDnn, join_convolutions
from citycover.model.form import check_form, forms_here, runtime_of
from citycover.model.graph import traced
from citycover.model.precision import Precision

JOINED, SUMMED = (
    torch.ops.aten.cudnn_convolution_relu.default,
    torch.ops.aten.cudnn_convolution_add_relu.default,
)
PLAIN = torch.ops.aten.convolution.default


@pytest.fixture
def processor() -> Iterator[None]:
    with cudnn_by_processor():
        yield


class Block(nn.Module):
    """Three joined convolutions, one of them on its way back to what it is added to, and one of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 8, 3, padding=2, dilation=2, bias=False)
        self.last, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        x = self.act(self.norm(self.stem(image.float() / 255)))
        y = self.act(x + self.last(self.middle(x).relu()))
        return nn.functional.interpolate(self.head(y), scale_factor=2.0, mode="bilinear")


def frozen(network: nn.Module) -> Callable[..., Tensor]:
    module: torch.jit.ScriptModule = torch.jit.freeze(torch.jit.script(network.eval()))
    return module


def block() -> Callable[..., Tensor]:
    torch.manual_seed(0)
    return frozen(Block())


def windows(*shape: int) -> Tensor:
    whole = torch.randint(0, 255, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return whole.contiguous(memory_format=torch.channels_last)


def kinds(network: Callable[..., Tensor], image: Tensor, precision: Precision = "fp32") -> Counter[object]:
    """Operators of what is written down."""
    line = traced(network, [image], precision)
    join_convolutions(line.graph)
    line.graph.lint()
    return Counter(node.target for node in line.graph.nodes if node.op == "call_function")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_says_what_torch_says_and_is_written_down_once(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, image = block(), windows(2, 3, 32, 48)
    other = ConvertedNetwork(Source("block", "0" * 64, network), CuDnn(), precision)
    with torch.inference_mode(), autocast(torch.device("cpu"), precision):
        torchs = network(image).float()
    scores = other(image)
    assert scores.dtype == torch.float32 and scores.shape == torchs.shape
    assert scores.allclose(torchs, atol=1e-6 if precision == "fp32" else 0.01)
    (kept,) = (tmp_path / "cache/forms").iterdir()
    (module,) = kept.glob("*.pt")
    graph = torch.jit.load(module).graph
    assert len(graph.findAllNodes("aten::cudnn_convolution_relu")) == 2
    assert len(graph.findAllNodes("aten::cudnn_convolution_add_relu")) == 1
    casts = graph.findAllNodes("aten::_to_copy")
    assert len(casts) <= 3, "weights are cast once, not at each call"

    monkeypatch.setattr(cudnn, "traced", lambda *_: pytest.fail("it is there"))
    again = ConvertedNetwork(Source("block", "0" * 64, network), CuDnn(), precision)
    assert again(image).equal(scores) and again(image.clone()).equal(scores)


class Both(nn.Module):
    """A convolution, and what a case makes of it."""

    def __init__(self, then: Callable[[Tensor, Tensor], Tensor], conv: nn.Module) -> None:
        super().__init__()
        self.then, self.conv = then, conv

    def forward(self, image: Tensor) -> Tensor:
        x = image.float()
        return self.then(self.conv(x), x)


def conv(**how: int) -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1, **how)  # type: ignore[arg-type]  # numbers


CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], nn.Module, dict[object, int]]] = {
    "followed by ReLU": (lambda y, _: y.relu(), conv(), {JOINED: 1}),
    "in place": (lambda y, _: y.relu_(), conv(), {JOINED: 1}),
    "added before": (lambda y, x: (y + x).relu(), conv(), {SUMMED: 1}),
    "added after": (lambda y, x: (x + y).relu(), conv(), {SUMMED: 1}),
    "added in place": (lambda y, x: y.add_(x).relu_(), conv(), {SUMMED: 1}),
    "added to itself": (lambda y, _: (y + y).relu(), conv(), {PLAIN: 1}),
    "added to another's": (lambda y, x: x.mul(2).add_(y).relu(), conv(), {PLAIN: 1}),
    "written meanwhile": (lambda y, x: (y + x.mul_(2)).relu(), conv(), {PLAIN: 1}),
    "weighed": (lambda y, x: torch.add(x, y, alpha=2).relu(), conv(), {PLAIN: 1}),
    "of another shape": (lambda y, x: (y + x[:, :1]).relu(), conv(), {PLAIN: 1}),
    "of another type": (lambda y, x: (y + x.double()).relu(), conv(), {PLAIN: 1}),
    "a number": (lambda y, _: (y + 1).relu(), conv(), {PLAIN: 1}),
    "looked at elsewhere": (lambda y, _: y.relu() + y, conv(), {PLAIN: 1}),
    "the sum, too": (lambda y, x: (y + x).relu() + (y + x), conv(), {PLAIN: 1}),
    "in groups": (lambda y, _: y.relu(), conv(groups=2), {PLAIN: 1}),
    "transposed": (lambda y, _: y.relu(), nn.ConvTranspose2d(4, 4, 2, 2), {PLAIN: 1}),
    "nothing": (lambda y, _: y.sigmoid(), conv(), {PLAIN: 1}),
}


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("case", CASES)
def test_only_what_nobody_else_looks_at_is_joined(case: str) -> None:
    torch.manual_seed(0)
    then, layer, expected = CASES[case]
    network, image = Both(then, layer).eval(), windows(1, 4, 12, 16)
    with torch.no_grad():
        wanted = network(image).float()
    found = kinds(network, image)
    assert {kind: found[kind] for kind in (JOINED, SUMMED, PLAIN) if found[kind]} == expected
    line = traced(network, [image], "fp32")
    join_convolutions(line.graph)
    line.recompile()
    with torch.no_grad():
        assert line(image).allclose(wanted, atol=1e-4)


def test_both_of_two_convolutions_that_are_added_are_computed_once() -> None:
    class Down(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = conv(), conv()

        def forward(self, image: Tensor) -> Tensor:
            return (self.one(image.float()) + self.two(image.float())).relu()

    found = kinds(Down().eval(), windows(1, 4, 12, 16))
    assert (found[SUMMED], found[PLAIN], found[JOINED]) == (1, 1, 0)


def test_what_cudnn_has_no_kernel_for_is_told_before_a_map_begins() -> None:
    other = ConvertedNetwork(Source("block", "0" * 64, block()), CuDnn())  # no device of CUDA is here
    with pytest.raises(ModelError, match=r"cuDNN cannot run the network of 'block': .*--form torchscript"):
        other(windows(1, 3, 16, 16))


def test_it_is_a_form_of_devices_of_cuda_with_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cudnn" not in forms_here() and runtime_of("cudnn") == ""
    with pytest.raises(MachineError, match=r"--form cudnn computes on CUDA devices, and the device is cpu"):
        check_form("cudnn", "cpu")
    monkeypatch.setattr(metadata, "version", lambda _name: "2.13.0+rocm7.0")
    with pytest.raises(
        MachineError, match=r"--form cudnn needs torch with cuDNN, .* give --form torchscript"
    ):
        check_form("cudnn", "cuda")
    monkeypatch.undo()
    check_form("cudnn", "cuda")
    assert forms_here("cuda")[:2] == ("torchscript", "cudnn")


def test_a_network_that_torch_has_fused_meanwhile_is_written_down_all_the_same() -> None:
    """On CUDA devices torch fuses what has run twice, and takes no tensor without numbers from then on."""
    settings = torch._C._jit_can_fuse_on_cpu(), torch._C._jit_texpr_fuser_enabled()
    network, image = frozen(Fusible()), windows(2, 3, 16, 16)
    try:
        torch._C._jit_override_can_fuse_on_cpu(True)
        torch._C._jit_set_texpr_fuser_enabled(True)
        torch._C._jit_set_te_must_use_llvm_cpu(False)
        with torch.inference_mode():
            for _ in range(4):
                network(image)
        assert "TensorExpr" in str(torch.jit.last_executed_optimized_graph())
        found = kinds(network, image)
    finally:
        torch._C._jit_override_can_fuse_on_cpu(settings[0])
        torch._C._jit_set_texpr_fuser_enabled(settings[1])
        torch._C._jit_set_te_must_use_llvm_cpu(True)
    assert found[JOINED] == 1


class Fusible(nn.Module):
    """What torch makes one kernel of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        y = self.conv(image.float() / 255).relu()
        return y.sigmoid() * y.tanh() + y


def test_what_is_kept_is_of_one_device_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn, "device_facts", lambda _device: ["cuda Fake", "9.0"])
    first, none, second = (CuDnn().facts(torch.device(name), "bf16") for name in ("cuda:0", "cuda", "cuda:1"))
    assert first == none != second
