from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_the_list_holds_what_other_programs_build_on(citycover) -> None:
    rows = json.loads(citycover("models", "list", "--json").out)
    names = {row["name"] for row in rows}
    assert {"spectral-rgbn", "vcnet-faithful", "daspm-b5", "c2fnet", "semantic-fpn-resnet50"} <= names
    wanted = {"name", "parameters", "gflop_per_mpx", "bands", "window", "output_scale"}
    assert all(wanted <= set(row) for row in rows)
    faithful = next(row for row in rows if row["name"] == "vcnet-faithful")
    assert faithful["parameters"] == 98_887_088 and faithful["bands"] == ["red", "green", "blue", "nir"]
    text = citycover("models", "list").out
    assert "98,887,088" in text and "built in" in text


def test_a_network_is_shown_with_its_licence_and_drawn(citycover, tmp_path: Path) -> None:
    out = citycover("models", "show", "c2fnet-tiny", "--figure", str(tmp_path / "n.png")).out
    for word in ("parameters", "receptive field", "licence", "ERRB", "kFLOP"):
        assert word in out
    assert (tmp_path / "n.png").stat().st_size > 5_000
    assert json.loads(citycover("models", "show", "c2fnet-tiny", "--json").out)["multiple"] == 16


def test_an_export_says_what_it_is_doing_unless_it_is_told_to_be_quiet(citycover, tmp_path: Path) -> None:
    command = ("export", "spectral-rgb", "--margins", "card", "-o", str(tmp_path / "m.pt"))
    said = citycover(*command)
    assert said.code == 0 and "trying bf16" in said.err and "sha256" in said.out
    assert "trying" not in citycover(*command, "--quiet").err
    assert "not measured" in citycover("models", "show", str(tmp_path / "m.pt")).out
    measured = citycover("export", "spectral-rgb", "-o", str(tmp_path / "m.pt"))
    assert "pixels still differ" in measured.out
    assert "pixels still differ" in citycover("models", "show", str(tmp_path / "m.pt")).out
    shown = json.loads(citycover("models", "show", str(tmp_path / "m.pt"), "--json").out)
    assert 0 <= shown["card"]["disagreement"] <= 0.01


def test_an_export_without_weights_says_that_they_are_random(citycover, tmp_path: Path) -> None:
    done = citycover("export", "c2fnet-tiny", "--margins", "card", "-o", tmp_path / "m.pt")
    assert done.code == 0 and "none: random weights" in done.out
    assert "a map by it means nothing" in citycover("inspect", tmp_path / "m.pt").err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("models", "show", "nothing"), "nothing"),
        (("export", "vcnet-tinny", "-o", "m.pt"), "vcnet-tiny"),
        (("export", "-o", "m.pt"), "name"),
        (("export", "c2fnet-tiny", "--format", "onnx", "-o", "m.pt"), "torchscript"),
        (("export", "c2fnet-tiny", "--weights", "no.safetensors", "-o", "m.pt"), "no.safetensors"),
    ],
)
def test_what_cannot_be_shown_or_exported_is_said(citycover, tmp_path, monkeypatch, arguments, word) -> None:
    monkeypatch.chdir(tmp_path)
    result = citycover(*arguments)
    assert result.code == 2
    assert word in result.err and "Traceback" not in result.err
