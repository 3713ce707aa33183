import json
import os
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from disk import left_by
from making import make_card, make_legend
from torch import Tensor, nn

from citycover.classes.legend import Legend, LegendClass
from citycover.errors import ConfigError, ModelError
from citycover.files.atomic import passing_names
from citycover.model.archive import read_model_file
from citycover.model.builtin import NAMES, builtin_path, find_model, read_builtins
from citycover.model.card import ModelCard
from citycover.model.checks import check_against_card
from citycover.model.mlm import parse_card
from citycover.model.network import load_model, load_torchscript, write_exported, write_torchscript
from citycover.model.probabilities import to_probabilities


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


def test_what_a_kill_leaves_of_writing_is_known_by_its_name(tmp_path: Path) -> None:
    network = torch.jit.script(Net().eval())
    trees = left_by(tmp_path, lambda: write_torchscript(network, CARD, tmp_path / "model.pt"))
    names = {name for tree in trees for name in tree}
    assert len(names) == 3 and all(fnmatch(name, passing_names("model.pt")) for name in names - {"model.pt"})


WRITING = """
import sys, torch
from test_archive import CARD, Net, write_torchscript
torch.manual_seed(0)
write_torchscript(torch.jit.script(Net().eval()), CARD, sys.argv[1])
"""


def test_a_network_is_the_same_file_whichever_process_writes_it(tmp_path: Path) -> None:
    """Python's sets of names, in whose order torch writes constants, differ between processes."""
    files = [tmp_path / "1.pt", tmp_path / "2.pt"]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    for seed, file in enumerate(files):
        environment = os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-c", WRITING, file], check=True, env=environment, timeout=240)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_card_comes_back_from_both_formats(model: Path) -> None:
    found = read_model_file(model)
    assert found.card == CARD and len(found.sha256) == 64
    assert found.format == ("torchscript" if model.suffix == ".pt" else "pt2")
    network, file = load_model(model, "cpu")
    assert file.card == CARD
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


def test_a_licence_that_nobody_gave_is_not_said() -> None:
    given = CARD.model_dump()
    given.pop("licence")
    assert parse_card(given, "test").licence == "not said"


def card_with(**fields: Any) -> ModelCard:
    return ModelCard.model_validate(make_card(64, 4, 8).model_dump() | fields)


@pytest.mark.parametrize(
    "scale", ["1/0", "1e99999999", "0", "-1", "nan", "inf", "1/99999999999", "9" * 5000, "", None]
)
def test_scales_that_are_none_are_refused_at_once(scale: str | None) -> None:
    with pytest.raises(ValueError, match="positive fraction"):
        card_with(output_scale=scale)


@pytest.mark.parametrize("scale", ["1", "5", "1/4", 1, 0.5])
def test_scales_are_read(scale: object) -> None:
    assert card_with(output_scale=scale).output_scale == Fraction(str(scale))


@pytest.mark.parametrize(
    "fields",
    [
        {"window": {"size": 2**40}},
        {"trim": 10**12},
        {"feather": -1},
        {"stride": 10**9},
        {"name": "a\x1b[2Jb"},
        {"name": "\ud800"},
        {"name": "x" * 2_000_000},
    ],
)
def test_numbers_and_names_of_a_card_are_bounded(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"card|character|input"):
        card_with(**fields)


def test_one_channel_needs_a_background() -> None:
    one = make_legend(1).model_dump()
    with pytest.raises(ValueError, match="one channel cannot be a map"):
        card_with(legend=one, channels=())
    two = make_legend(2)
    with pytest.raises(ValueError, match="needs a legend of two classes"):
        card_with(background=two.ids[0])
    card = card_with(legend=two.model_dump(), channels=(), background=two.ids[0])
    assert card.scores == 1 and len(card.channels) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("activation", ["logits", "probabilities"])
def test_a_background_gets_what_its_class_does_not(order: tuple[int, int], activation: str) -> None:
    legend = make_legend(2)
    channels = tuple(legend.ids[k] for k in order)
    fields = {"legend": legend.model_dump(), "channels": channels, "background": legend.ids[0]}
    card = card_with(**fields, activation=activation)
    scores = torch.randn(3, 1, 8, 6)
    present = scores.sigmoid() if activation == "logits" else scores.sigmoid_()
    found = to_probabilities(scores, card)
    for rank, position in enumerate(order):
        wanted = present if position == 1 else 1 - present
        torch.testing.assert_close(found[:, rank : rank + 1], wanted)


def test_class_names_can_be_written_and_told_apart() -> None:
    for name in ("a\x00b", "a\x1bb", "a\nb", ""):
        with pytest.raises(ValueError, match=r"printable|at least 1"):
            LegendClass(id=1, name=name, color="#000000")
    twice = [{"id": k, "name": "Water", "color": "#000000"} for k in (1, 2)]
    with pytest.raises(ValueError, match="class names must differ"):
        Legend.model_validate({"name": "x", "nodata": 0, "classes": twice})


def test_a_card_names_built_in_legends_and_no_files(tmp_path: Path) -> None:
    legend = tmp_path / "mine.toml"
    legend.write_text('nodata = 0\nclasses = [{id = 1, name = "a", color = "#000000"}]\n')
    for name in (str(legend), "9" * 5000, "nothing"):
        with pytest.raises(ConfigError, match="there is no legend"):
            ModelCard.model_validate(
                {"name": "m", "groups": [{"bands": ["red"], "dtypes": ["uint8"]}], "window": {"size": 64},
                 "trim": 0, "feather": 0, "legend": name}
            )  # fmt: skip
