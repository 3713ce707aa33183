"""The examples of the site run, in a small form, and say something."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
QUICK = [script for script in SCRIPTS if script.stem != "gallery"]


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_examples", ROOT / "docs/site/examples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "script",
    [*QUICK, pytest.param(FOLDER / "gallery.py", marks=pytest.mark.slow)],  # twenty commands
    ids=lambda script: script.stem,
)
def test_an_example_runs(script: Path, runner: ModuleType, tmp_path: Path) -> None:
    page = runner.run_example(script, tmp_path, {"SIZE": 192, "EPOCHS": 1}).read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert pictures and all((tmp_path / name).is_file() for name in pictures)
    assert page.count("```text") >= 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_page_in_the_docs_is_of_the_script_as_it_is(script: Path) -> None:
    page = script.with_suffix(".md").read_text()
    code = [body.strip() for head, body in _cells(script) if "[markdown]" not in head]
    assert code == re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)


def _cells(script: Path) -> list[tuple[str, str]]:
    parts = re.split(r"^# %%(.*)\n", script.read_text(), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))
