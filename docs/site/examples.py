"""Run the examples, and write what they say and draw as pages of the site.

    python docs/site/examples.py              all of them
    python docs/site/examples.py gallery      one

An example is a script in cells: `# %% [markdown]` begins text in comments, `# %%` code. Its page shows both,
what the code printed, and the pictures that it handed to `show`. Names in capitals are numbers that whoever
runs a script may change: a test makes them small.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"

_WIDEST = 860
"""Pixels of a picture on a page."""


@dataclass
class Page:
    """What an example has said and drawn so far."""

    folder: Path
    name: str
    parts: list[str] = field(default_factory=list)
    pictures: int = 0

    def show(self, picture: Path | str | Image.Image, title: str = "") -> None:
        """Put a picture onto the page, small."""
        image = picture if isinstance(picture, Image.Image) else Image.open(picture)
        image = image.convert("RGB")
        image.thumbnail((_WIDEST, _WIDEST))
        self.pictures += 1
        file = f"{self.name}-{self.pictures}.webp"
        image.save(self.folder / file, "WEBP", quality=80)
        self.parts.append(f"![{title}]({file})")


def run_example(script: Path, folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Run a script in an empty folder of its own, and write its page.

    Args:
        script: the example.
        folder: where page and pictures go.
        changes: other numbers than its own, by name.
    """
    page = Page(folder, script.stem)
    known: dict[str, Any] = {"__name__": "example", "show": page.show}
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):
        for number, (kind, text) in enumerate(_cells(script.read_text(encoding="utf-8"))):
            if kind == "text":
                page.parts.append(text)
                continue
            page.parts.append(f"```python\n{text}\n```")
            place = len(page.parts)
            said = _run(text, known, f"{script.name}, cell {number}", changes or {}).replace(f"{work}/", "")
            if said:
                page.parts.insert(place, f"```text\n{said}\n```")
    path = folder / f"{script.stem}.md"
    path.write_text("\n\n".join(page.parts) + "\n", encoding="utf-8")
    return path


def _cells(text: str) -> Iterator[tuple[str, str]]:
    """Kind and content of each cell."""
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, re.MULTILINE):
        if "[markdown]" in head:
            yield "text", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
        else:
            yield "code", body.strip()


def _run(code: str, known: dict[str, Any], where: str, changes: Mapping[str, Any]) -> str:
    """Run a cell; returns what it printed, and the value of its last line."""
    tree = ast.parse(code)
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(name := node.targets[0], ast.Name)
            and name.id in changes
        ):
            node.value = ast.copy_location(ast.Constant(changes[name.id]), node.value)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(tree, where, "exec"), known)  # noqa: S102 - examples are ours
        value = None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), known)  # noqa: S307
        if value is not None:
            print(value)  # noqa: T201
    return out.getvalue().rstrip()


def main(names: list[str]) -> None:
    """Run those that are named, else all."""
    os.environ["COLUMNS"] = "100"
    for script in sorted(EXAMPLES.glob("*.py")):
        if not names or script.stem in names:
            run_example(script, EXAMPLES)


if __name__ == "__main__":
    main(sys.argv[1:])
