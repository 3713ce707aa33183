"""The site: built from what is there, complete, and without a request to anybody."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import citycover

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site/hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; whatever would be a warning is an error (with `--quiet` none is counted)."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_verb_has_a_page_with_every_option(hooks: ModuleType) -> None:
    pages = hooks.verb_pages()
    for words, command, _ in hooks.verbs():
        page = pages[f"{words.replace(' ', '-')}.md"]
        for parameter in command.params:
            written = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]
            assert (written or parameter.name.upper()) in page, (words, parameter.name)
    assert {"map", "models show", "vectorize"} <= {words for words, _, _ in hooks.verbs()}


def test_examples_of_the_api_are_code_not_quotes(site: Path) -> None:
    page = (site / "api.html").read_text()
    assert page.count("mkdtemp") > 5
    assert "<blockquote>" not in page


def test_nothing_on_a_page_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(?:https?:)?//[^\s>\"]+[^>]*>")
    for page in pages:
        found = [tag for tag in fetched.findall(page.read_text()) if 'rel="canonical"' not in tag]
        assert not found, (page, found)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", sheet.read_text()), sheet


def test_what_the_package_offers_is_documented(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in citycover.__all__:
        if name != "__version__":
            assert f'id="citycover.{name}"' in page, name
