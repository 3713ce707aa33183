"""Which model files are run: the one that was asked for, and those that the machine's owner has listed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from citycover.errors import ModelError
from citycover.model.builtin import builtin_path
from citycover.model.network import load_model
from citycover.model.trusted import TRUSTED


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(builtin_path("spectral-rgbn"), tmp_path / "model.pt"))


def words(verb: str, scene: Path, model: Path, tmp_path: Path) -> tuple[object, ...]:
    return {
        "map": ("map", scene, "--model", model, "-o", tmp_path / "out"),
        "plan": ("plan", scene, "--model", model, "--no-probe"),
        "bench": ("models", "bench", model, "--window", "64", "--repeats", "1"),
    }[verb]


@pytest.mark.parametrize("verb", ["map", "plan", "bench"])
def test_another_model_than_the_required_one_is_refused(
    citycover, scene: Path, model: Path, tmp_path: Path, verb: str
) -> None:
    given = words(verb, scene, model, tmp_path)
    digest = json.loads(citycover("inspect", model, "--json").out)["sha256"]
    refused = citycover(*given, "--require-hash", "0" * 64)
    assert refused.code == 2 and digest in refused.err and "is required" in refused.err
    assert not (tmp_path / "out").exists()
    assert citycover(*given, "--require-hash", digest[:12]).code == 0


@pytest.mark.parametrize("verb", ["map", "plan", "bench"])
def test_a_model_that_is_not_listed_is_refused(
    citycover, scene: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    given, trusted = words(verb, scene, model, tmp_path), tmp_path / "trusted.txt"
    monkeypatch.setenv(TRUSTED, str(trusted))
    assert "cannot be read" in citycover(*given).err
    trusted.write_text("0" * 64 + "  another.pt\n")
    refused = citycover(*given)
    assert refused.code == 2 and "is not trusted" in refused.err and not (tmp_path / "out").exists()
    digest = json.loads(citycover("inspect", model, "--json").out)["sha256"]
    trusted.write_text(f"{digest}  model.pt\n")
    assert citycover(*given).code == 0


def test_a_built_in_that_is_chosen_unasked_must_be_listed_too(
    citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trusted.txt").write_text("")
    monkeypatch.setenv(TRUSTED, str(tmp_path / "trusted.txt"))
    assert "is not trusted" in citycover("plan", scene, "--no-probe").err


def test_what_is_loaded_is_the_file_that_was_looked_at(model: Path) -> None:
    with pytest.raises(ModelError, match="it was changed, or is another"):
        load_model(model, "cpu", "0" * 64)
