import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover.model.archive import read_model_file
from citycover.model.network import load_model
from citycover_models.catalogue.registry import find_preset
from citycover_models.export.adopt import adopt_torchscript, read_card
from citycover_models.export.network import export_preset
from citycover_models.export.write import export_pt2, export_torchscript

DOCS = Path(__file__).parents[3] / "docs" / "card.md"


class Roofs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.float() / 255)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """The example of the documentation."""
    (text,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (tmp_path / "card.toml").write_text(text)
    return tmp_path / "card.toml"


def test_the_documented_card_exports(card: Path, tmp_path: Path) -> None:
    torch.jit.script(Roofs()).save(tmp_path / "net.pt")
    report = adopt_torchscript(tmp_path / "net.pt", card, tmp_path / "model.pt")
    found = read_model_file(tmp_path / "model.pt")
    assert found.card == report.card == read_card(card)
    assert found.card.channels == (5, 2) and found.card.groups[0].names == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('name = "roofs"', "", "name"),
        ("trim = 16", "trim = 15", "stride"),
        ("channels = [5, 2]", "channels = [5, 2, 1]", "promises"),
        ('legend = "landcover5"', 'legend = "atlantis"', "atlantis"),
        ("[window]", "[windows]", "window"),
    ],
)
def test_a_card_that_is_wrong_is_refused(card: Path, tmp_path: Path, old: str, new: str, word: str) -> None:
    torch.jit.script(Roofs()).save(tmp_path / "net.pt")
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new))
    with pytest.raises(Exception, match=word) as caught:
        adopt_torchscript(tmp_path / "net.pt", card, tmp_path / "model.pt")
    assert getattr(caught.value, "exit_code", None) == 2
    assert not (tmp_path / "model.pt").exists()


def test_both_formats_give_the_scores_of_the_network(tmp_path: Path) -> None:
    preset = find_preset("spectral-rgb")
    network = preset.build().eval()
    torch.manual_seed(0)
    window = torch.randint(0, 255, (1, 3, 90, 70), dtype=torch.uint8)
    for export, name in ((export_torchscript, "a.pt"), (export_pt2, "a.pt2")):
        report = export(network, preset.card(), tmp_path / name)
        assert report.difference <= 1e-5 and len(report.sides) >= 1
        loaded, _ = load_model(tmp_path / name, "cpu")
        with torch.inference_mode():
            assert loaded(window).allclose(network(window), atol=1e-4)


def test_a_network_that_changes_when_scripted_is_refused(tmp_path: Path) -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x.float()[:, :1].repeat(1, 5, 1, 1)
            if torch.jit.is_scripting():
                return y * 2
            return y

    with pytest.raises(ModelError, match="changes when it is exported"):
        export_torchscript(Moody(), find_preset("spectral-rgb").card(), tmp_path / "m.pt")


def test_a_preset_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="models list"):
        export_preset("atlantis", tmp_path / "m.pt")


class OneSize(nn.Module):
    """What a trace of attention keeps: the size that it was traced with."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        z = x.float().mean(1).reshape(-1, 1, self.side, self.side)
        return torch.cat([-z, z], 1)


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """Of a network of two classes for windows of colours."""
    path = tmp_path / "card.toml"
    path.write_text(
        'name = "b"\ntrim = 0\nfeather = 8\n[[groups]]\nbands = ["red", "green", "blue"]\n'
        'dtypes = ["uint8"]\n[window]\nsize = 256\n[legend]\nname = "b"\nnodata = 0\n'
        'classes = [{id = 1, name = "a", '
        'color = "#000000"}, {id = 2, name = "b", color = "#ff0000"}]\n'
    )
    return path


@pytest.mark.parametrize("side", [64, None])
def test_a_network_that_takes_one_size_is_found_at_export(
    tmp_path: Path, two_classes: Path, side: int | None
) -> None:
    side = side or read_card(two_classes).window.size
    torch.jit.save(torch.jit.trace(OneSize(side), torch.rand(2, 3, side, side)), tmp_path / "raw.pt")
    with pytest.raises(ModelError, match=r"does not take the windows that the card .* promises"):
        adopt_torchscript(tmp_path / "raw.pt", two_classes, tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


class OnOneDevice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.float().mean(1, keepdim=True)
        return torch.cat([torch.zeros(y.shape, device="cuda:0"), y], 1)


class Weighs(nn.Module):
    """A convolution, or the same as a product."""

    def __init__(self, convolve: bool) -> None:
        super().__init__()
        self.conv, self.convolve = nn.Conv2d(3, 2, 1), convolve

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.convolve:
            return self.conv(x)
        return torch.einsum("ocij,ncyx->noyx", self.conv.weight, x)


@pytest.mark.parametrize(
    ("network", "remedy"),
    [
        (OnOneDevice(), "device=x.device"),
        *((Weighs(form).to(kind), r"network\.float\(\)") for form in (True, False)
          for kind in (torch.float16, torch.bfloat16, torch.float64)),
    ],
)  # fmt: skip
def test_a_network_that_is_tied_to_a_device_or_a_type_is_refused_with_the_way_on(
    tmp_path: Path, two_classes: Path, network: nn.Module, remedy: str
) -> None:
    torch.jit.save(torch.jit.script(network), tmp_path / "raw.pt")
    with pytest.raises(ModelError, match=remedy) as refused:
        adopt_torchscript(tmp_path / "raw.pt", two_classes, tmp_path / "m.pt")
    assert "registered at" not in str(refused.value) and "Error: " in str(refused.value)
    assert not (tmp_path / "m.pt").exists()
