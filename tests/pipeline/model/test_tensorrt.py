"""A network brought to TensorRT: all but TensorRT itself, in whose place a processor computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from citycover.errors import MachineError, ModelError
from citycover.model import tensorrt
from citycover.model.builtin import builtin_path
from citycover.model.converted import ConvertedNetwork, Source
from citycover.model.form import check_form, forms_here, runtime_of
from citycover.model.gate import passes_gate
from citycover.model.precision import Precision
from citycover.model.predictor import ModelPredictor
from citycover.model.probabilities import to_probabilities
from citycover.model.tensorrt import TensorRt, tensorrt_provider

CPU = torch.device("cpu")


def here() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError:
            return False
    return True


onnx = pytest.mark.skipif(not here(), reason="onnxruntime, onnxscript are not installed")


def processor(_folder: Path, _device: torch.device, _precision: Precision) -> tensorrt.Provider:
    return "CPUExecutionProvider", {}


class Two(nn.Module):
    """Of two band groups, one of them coarse; it pads, as networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(2, 8, 1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        height, width = image.shape[2:]
        y = self.norm(self.fine(nn.functional.pad(image.float() / 255, [0, -width % 8, 0, -height % 8])))
        y = y[:, :, :height, :width]
        up = nn.functional.interpolate(self.coarse(other), scale_factor=2.0, mode="bilinear")
        return self.head(y.relu() + up + nn.functional.max_pool2d(y, 3, 1, 1))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "forms"


def frozen(network: nn.Module) -> Callable[..., Tensor]:
    return torch.jit.freeze(torch.jit.script(network.eval()))


def windows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    fine = torch.randint(0, 255, (2, 3, 38, 20), dtype=torch.uint8, generator=generator)
    return fine, torch.rand(2, 2, 19, 10, generator=generator)


@onnx
@pytest.mark.parametrize(("precision", "apart"), [("tf32", 1e-5), ("fp16", 0.02)])
def test_it_says_what_torch_says_and_is_converted_once(
    precision: Precision, apart: float, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network, given = frozen(Two()), windows()
    source = Source("two", "0" * 64, network)
    converted = ConvertedNetwork(source, TensorRt(provider=processor), precision)
    with torch.inference_mode():
        torchs = network(*given)
    scores = converted(*given)
    assert scores.shape == (2, 4, 38, 20) and scores.dtype == torch.float32 and scores.is_contiguous()
    assert scores.allclose(torchs, atol=apart)
    laid_out = [window.contiguous(memory_format=torch.channels_last) for window in given]
    assert converted(*laid_out).equal(scores)
    first = scores.clone()
    other = converted(given[0].flip(2), given[1].flip(2))
    assert scores.equal(first) and not other.equal(first), "scores are the caller's own"
    (kept,) = cache.iterdir()
    assert {path.name for path in kept.iterdir()} == {"network.onnx", "record.json"}

    monkeypatch.setattr(tensorrt, "_convert", lambda *_: pytest.fail("it is there"))
    assert ConvertedNetwork(source, TensorRt(provider=processor), precision)(*given).equal(scores)


@onnx
def test_built_in_networks_are_taken_whole() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), CPU)
    source = Source("rgbn", "0" * 64, predictor.network)
    converted = ConvertedNetwork(source, TensorRt(provider=processor), "tf32")
    for numbers in (torch.uint8, torch.float32):
        image = torch.randint(0, 255, (1, 4, 64, 96), dtype=torch.uint8).to(numbers)
        torchs, ours = (to_probabilities(s, predictor.card) for s in (predictor([image]), converted(image)))
        assert passes_gate(torchs, ours) and (torchs.argmax(1) != ours.argmax(1)).float().mean() < 1e-3


@onnx
def test_what_it_cannot_convert_is_named(cache: Path) -> None:
    class Doubting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return -image if bool(image.mean() > 0.5) else image

    source = Source("doubting", "1" * 64, frozen(Doubting()))
    with pytest.raises(ModelError, match=r"TensorRT cannot run the network of 'doubting': .*torchscript"):
        ConvertedNetwork(source, TensorRt(provider=processor))(torch.rand(1, 3, 8, 8))
    assert not any(cache.iterdir())


@onnx
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_where_tensorrt_is_not_to_be_had_nothing_else_computes(capfd: pytest.CaptureFixture[str]) -> None:
    """The ONNX Runtime of processors stands for one that finds no TensorRT."""
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is to be had")
    with pytest.raises(ModelError, match=r"TensorRT cannot run the network of 'two'.*--form torchscript"):
        ConvertedNetwork(Source("two", "0" * 64, frozen(Two())), TensorRt())(*windows())
    assert "Fall" not in capfd.readouterr().out


def test_the_provider_is_told_device_precision_and_where_engines_lie(tmp_path: Path) -> None:
    name, options = tensorrt_provider(tmp_path, torch.device("cuda:1"), "bf16")
    assert name == "TensorrtExecutionProvider" and options["device_id"] == "1"
    assert (options["trt_bf16_enable"], options["trt_fp16_enable"]) == ("1", "0")
    assert options["trt_engine_cache_path"] == str(tmp_path)
    assert tensorrt_provider(tmp_path, torch.device("cuda"), "tf32")[1]["trt_bf16_enable"] == "0"


def test_it_is_there_on_cuda_devices_where_all_of_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnx": "1", "onnxscript": "2", "onnxruntime-gpu": "3", "torch": "2.13.0"}
    monkeypatch.setattr("citycover.model.form._version", versions.get)
    assert runtime_of("tensorrt") is None
    with pytest.raises(MachineError, match=r"pip install 'citycover\[tensorrt\]' tensorrt, or give"):
        check_form("tensorrt", "cuda")
    versions["tensorrt-cu13"] = "11"
    assert runtime_of("tensorrt") == "onnxruntime 3" and "tensorrt" in forms_here("cuda")
    assert "tensorrt" not in forms_here("cpu")
    with pytest.raises(MachineError, match="computes on CUDA devices, and the device is cpu"):
        check_form("tensorrt", "cpu")


def test_fp32_is_refused_for_it_multiplies_as_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citycover.model.predictor.check_form", lambda *_: None)
    predictor = ModelPredictor.load(builtin_path("spectral-rgb"), CPU)
    with pytest.raises(MachineError, match="computes in tf32, bf16, fp16, not in fp32"):
        predictor.at("fp32", "tensorrt")
