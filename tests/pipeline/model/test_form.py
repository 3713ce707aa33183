"""Forms of a network: what is there, what is made of a network, and what is kept of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from citycover.errors import MachineError, ModelError
from citycover.model import compiled
from citycover.model.builtin import builtin_path
from citycover.model.compiled import Artefact, kept
from citycover.model.converted import ConvertedNetwork, Source, Stop, shapes_of
from citycover.model.form import check_form, forms_here, runtime_of
from citycover.model.graph import is_straight, straight_graph
from citycover.model.openvino import OpenVino
from citycover.model.precision import Precision
from citycover.model.predictor import ModelPredictor

openvino = pytest.mark.skipif("openvino" not in forms_here(), reason="the extra openvino is not installed")


def test_a_form_whose_runtime_is_missing_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(_name: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(metadata, "version", none)
    assert forms_here() == ("torchscript",) and runtime_of("openvino") is None
    with pytest.raises(MachineError, match=r"--form aotinductor needs torch 2\.13 or later"):
        check_form("aotinductor", "cpu")
    check_form("torchscript", "cuda")
    with pytest.raises(
        MachineError, match=r"pip install 'citycover\[openvino\]', or give --form torchscript"
    ):
        check_form("openvino", "cpu")
    monkeypatch.setattr(metadata, "version", lambda _name: "1.2")
    assert runtime_of("openvino") == "openvino 1.2"
    with pytest.raises(MachineError, match="computes on processors, and the device is cuda"):
        check_form("openvino", "cuda")


class Asking(nn.Module):
    """Pads to multiples of 8, as many networks do: it asks its input for its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        down, right = -height % 8, -width % 8
        x = image.float() / 255
        if down > 0 or right > 0:
            x = nn.functional.pad(x, [0, right, 0, down])
        for _ in range(2):
            x = torch.cat(
                [x, nn.functional.interpolate(nn.functional.max_pool2d(x, 2), scale_factor=2.0)], 1
            )[:, :3]
        return self.conv(x)[:, :, :height, :width]


class Doubting(nn.Module):
    """Asks for numbers, which no graph can answer."""

    def forward(self, image: Tensor) -> Tensor:
        x = image.float()
        if bool(x.mean() > 100):
            x = -x
        return x


def frozen(network: nn.Module) -> Callable[..., Tensor]:
    return torch.jit.freeze(torch.jit.script(network.eval()))


def windows(*shape: int) -> Tensor:
    whole = torch.randint(0, 255, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return whole.contiguous(memory_format=torch.channels_last)


def test_what_a_network_asks_of_shapes_is_answered_and_the_scores_are_the_same() -> None:
    torch.manual_seed(0)
    network, image = frozen(Asking()), windows(2, 3, 50, 41)
    graph = straight_graph(network, [image])
    assert "prim::If" in str(network.graph) and "prim::If" not in str(graph.graph)  # type: ignore[attr-defined]
    with torch.inference_mode():
        assert graph(image).equal(network(image))


class Plain(nn.Module):
    """Asks nothing of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.up(nn.functional.max_pool2d(self.conv(image.float() / 255), 2))


def test_a_network_that_asks_nothing_is_taken_as_it_is() -> None:
    torch.manual_seed(0)
    plain = frozen(Plain())
    assert straight_graph(plain, [windows(1, 3, 16, 16)]) is plain and is_straight(plain)
    loose = torch.jit.script(Plain().eval())
    for asking in (frozen(Asking()), frozen(Doubting()), loose, Plain()):
        assert not is_straight(asking), "it asks, has parts elsewhere, or is no TorchScript"


@openvino
def test_openvino_takes_it_so_with_the_same_scores_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plain, image, said = frozen(Plain()), windows(2, 3, 48, 40), []
    before = str(plain.graph)  # type: ignore[attr-defined]
    for number, sees in enumerate((is_straight, lambda _network: False)):
        monkeypatch.setattr("citycover.model.graph.is_straight", sees)
        said.append(ConvertedNetwork(Source("plain", str(number) * 64, plain), OpenVino())(image))
    assert said[0].equal(said[1]) and said[0].allclose(plain(image), atol=1e-5)
    assert str(plain.graph) == before, "torch goes on with it"  # type: ignore[attr-defined]


@openvino
def test_what_is_kept_for_windows_takes_no_making_and_is_loaded_anew_when_forgotten() -> None:
    torch.manual_seed(0)
    made: list[Path] = []

    class Counting(OpenVino):
        def make(
            self, source: Source, given: Sequence[Tensor], precision: Precision, folder: Path, stop: Stop
        ) -> None:
            made.append(folder)
            super().make(source, given, precision, folder, stop)

    image = windows(1, 3, 16, 24)
    for network, least in ((frozen(Plain()), 0.5), (frozen(Asking()), 2.0)):
        made.clear()
        other = ConvertedNetwork(Source("it", f"{least:.0e}" * 8, network), Counting())
        assert other.setting_up(shapes_of([image]), image.device) == least
        scores = other(image)
        assert other.setting_up(shapes_of([image]), image.device) == 0.0
        assert other.setting_up(shapes_of([image.transpose(2, 3)]), image.device) == least
        other.forget()
        assert not other.ready and other(image).equal(scores) and len(made) == 1


def test_what_a_network_asks_of_numbers_cannot_be() -> None:
    with pytest.raises(RuntimeError):
        straight_graph(frozen(Doubting()), [windows(1, 3, 8, 8)])


@openvino
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_says_what_torch_says(precision: str) -> None:
    torch.manual_seed(0)
    network = frozen(Asking())
    other = ConvertedNetwork(Source("asking", "0" * 64, network), OpenVino(), precision)  # type: ignore[arg-type]
    first, second = windows(2, 3, 50, 41), windows(2, 3, 50, 41).flip(3)
    with torch.inference_mode():
        said = [other(first), other(second.contiguous(memory_format=torch.channels_last))]
        for image, scores in zip((first, second), said, strict=True):
            assert scores.allclose(network(image), atol=1e-5 if precision == "fp32" else 0.05)
            assert scores.is_contiguous() and scores.dtype == torch.float32
        assert other(first[:1]).shape == (1, 4, 50, 41)


@openvino
def test_a_network_that_openvino_cannot_run_is_named() -> None:
    other = ConvertedNetwork(Source("doubting", "1" * 64, frozen(Doubting())), OpenVino())
    with pytest.raises(
        ModelError, match=r"OpenVINO cannot run the network of 'doubting': .*--form torchscript"
    ):
        other(windows(1, 3, 8, 8))


@openvino
def test_scores_of_any_number_of_threads_are_the_same() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu")).at("fp32", "openvino")
    image, before, said = windows(2, 4, 128, 128), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            said.append(predictor([image]))
    finally:
        torch.set_num_threads(before)
    assert said[0].equal(said[1]) and said[0].equal(said[2])


@openvino
def test_openvino_is_imported_without_what_calls_home() -> None:
    code = (
        "import sys, torch\n"
        "from citycover.model.converted import ConvertedNetwork, Source\n"
        "from citycover.model.openvino import OpenVino\n"
        "network = torch.jit.freeze(torch.jit.script(torch.nn.Conv2d(3, 2, 1).eval()))\n"
        "one = ConvertedNetwork(Source('x', 'y', network), OpenVino())\n"
        "assert one(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 8, 8)\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@openvino
def test_a_signal_finds_its_stack_after_another_thread_let_go_of_the_network() -> None:
    code = (
        "import gc, signal, threading, torch\n"
        "from citycover.model.converted import ConvertedNetwork, Source\n"
        "from citycover.model.openvino import OpenVino\n"
        "network = torch.jit.freeze(torch.jit.script(torch.nn.Conv2d(3, 2, 1).eval()))\n"
        "held = [ConvertedNetwork(Source('x', 'y', network), OpenVino())]\n"
        "held[0](torch.zeros(1, 3, 8, 8))\n"
        "other = threading.Thread(target=lambda: (held.clear(), gc.collect()))\n"
        "other.start(); other.join()\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('heard'))\n"
        "signal.raise_signal(signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "forms"


def made(artefact: Artefact, text: str = "made") -> tuple[str, bool]:
    """What an artefact says, and whether it was made now."""
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "network").write_text(text)

    with kept(artefact, make) as folder:
        return (folder / "network").read_text(), bool(calls)


def test_what_was_made_is_kept_for_its_user_alone(cache: Path) -> None:
    one, other = Artefact.of(model="a", shape=[1]), Artefact.of(model="a", shape=[2])
    assert made(one) == ("made", True) and made(one, "again") == ("made", False)
    assert made(other, "other") == ("other", True)
    assert cache.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in cache.iterdir()) == sorted([one.name, other.name])


@pytest.mark.parametrize("damage", ["content", "more", "record", "moved", "link", "link within"])
def test_what_was_damaged_or_is_anothers_is_made_anew(damage: str, cache: Path, tmp_path: Path) -> None:
    one = Artefact.of(model="a")
    made(one)
    folder = cache / one.name
    if damage == "content":
        (folder / "network").write_text("evil")
    elif damage == "more":
        (folder / "beside").write_text("evil")
    elif damage == "record":
        (folder / "record.json").write_text("[]")
    elif damage == "link within":
        (folder / "network").rename(tmp_path / "elsewhere")
        (folder / "network").symlink_to(tmp_path / "elsewhere")
    elif damage == "moved":
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps(record | {"of": "{}"}))
    else:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    assert made(one, "anew") == ("anew", True)
    assert made(one) == ("anew", False)


def test_a_folder_of_others_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    assert made(Artefact.of(model="a")) == ("made", True)
    assert made(Artefact.of(model="a")) == ("made", True) and not any(cache.iterdir())


def test_the_longest_unused_goes_when_room_is_short(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefacts = [Artefact.of(number=k) for k in range(4)]
    for age, artefact in enumerate(artefacts[:3]):
        made(artefact)
        os.utime(cache / artefact.name, (1e9 + age, 1e9 + age))
    made(artefacts[0])  # used: the second is the oldest now
    size = sum(file.stat().st_size for file in (cache / artefacts[0].name).iterdir())
    monkeypatch.setattr(compiled, "MOST_BYTES", 3 * size + 10)
    made(artefacts[3])
    assert {path.name for path in cache.iterdir()} == {artefacts[k].name for k in (0, 2, 3)}


def test_what_cannot_be_made_leaves_nothing(cache: Path) -> None:
    def fail(_folder: Path) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), kept(Artefact.of(model="a"), fail):
        pass
    assert not any(cache.iterdir())
