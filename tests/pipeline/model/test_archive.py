import json
import zipfile
from pathlib import Path

import pytest
import torch
from making import make_card
from torch import Tensor, nn

from citycover.errors import ModelError
from citycover.model.archive import (
    load_model,
    load_torchscript,
    read_model_file,
    write_exported,
    write_torchscript,
)
from citycover.model.builtin import NAMES, builtin_path, find_model, read_builtins
from citycover.model.card import ModelCard
from citycover.model.checks import check_against_card
from citycover.model.mlm import parse_card


class Net(nn.Module):
    def __init__(self, channels: int = 5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.float() / 255)


CARD = make_card(64, 2, 4)


@pytest.fixture(params=["torchscript", "pt2"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / ("model.pt" if request.param == "torchscript" else "model.pt2")
    if request.param == "torchscript":
        write_torchscript(torch.jit.script(Net().eval()), CARD, path)
    else:
        example = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        sizes = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
        write_exported(torch.export.export(Net().eval(), (example,), dynamic_shapes=(sizes,)), CARD, path)
    return path


def test_the_card_comes_back_from_both_formats(model: Path) -> None:
    found = read_model_file(model)
    assert found.card == CARD and len(found.sha256) == 64
    assert found.format == ("torchscript" if model.suffix == ".pt" else "pt2")
    network, card = load_model(model, "cpu")
    assert card == CARD
    window = torch.randint(0, 255, (1, 3, 48, 80), dtype=torch.uint8)
    torch.manual_seed(0)
    assert network(window).allclose(Net()(window), atol=1e-5)


def test_the_card_is_a_stac_item_of_the_mlm_extension(model: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("card.json"))
        item = json.loads(archive.read(name))
    assert item["type"] == "Feature" and item["geometry"] is None
    assert item["properties"]["mlm:input"][0]["bands"] == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert parse_card(item, "test") == CARD


def test_files_that_are_no_model_are_named(tmp_path: Path) -> None:
    for name, content in (
        ("empty.pt", b""),
        ("text.pt", b"hello"),
        ("cut.pt", builtin_path(NAMES[0]).read_bytes()[:5000]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=name):
            read_model_file(tmp_path / name)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt"):
        read_model_file(tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="spectral-rgb"):
        find_model("nothing")


def test_a_network_without_a_card_says_how_to_give_it_one(tmp_path: Path) -> None:
    torch.jit.script(Net()).save(tmp_path / "bare.pt")
    with pytest.raises(ModelError, match="citycover export --torchscript"):
        read_model_file(tmp_path / "bare.pt")
    assert load_torchscript(tmp_path / "bare.pt", "cpu")(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (Net(4), "promises"),
        (lambda x: Net()(x)[:, :, ::2], "promises"),
        (lambda x, _y: Net()(x), "does not take"),
        (lambda x: Net()(x) * torch.nan, "non-finite"),
        (lambda x: Net()(x).argmax(1, keepdim=True).expand(-1, 5, -1, -1), "floating-point"),
        (lambda x: (Net()(x),), "one tensor"),
    ],
)
def test_a_network_that_contradicts_its_card_is_refused(function, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        check_against_card(function, CARD)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"trim": 3, "stride": 4}, "not a multiple of stride"),
        ({"feather": 50}, "at least the feather"),
        ({"channels": (1, 9)}, "not in the legend"),
        ({"output_scale": "1/7"}, "whole number"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes: dict, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        parse_card(CARD.model_dump() | changes, "test")


def test_the_built_in_models_are_small_and_say_where_they_come_from() -> None:
    for model in read_builtins():
        assert model.path.stat().st_size < 50_000
        assert isinstance(model.card, ModelCard) and model.card.sources and model.card.licence == "Apache-2.0"
