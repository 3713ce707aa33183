"""What of the site is made when it is built: a page for each verb, and README and CHANGELOG as pages.

The verbs are asked what they are, so that no page can be older than the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from citycover_cli.app import app

_KINDS = {"str": "TEXT", "path": "PATH", "int": "N", "int range": "N", "float": "X", "float range": "X"}
"""What typer calls types, in the words of a manual."""

_EVERYWHERE = ("--json", "--verbose", "--quiet", "--log-file")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the verbs into the navigation."""
    for section in config.nav or ():
        if "Commands" in section:
            section["Commands"] = ["commands/index.md", *(f"commands/{name}" for name in verb_pages())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is no file in docs/."""
    root = Path(config.config_file_path).parent
    pages = {f"commands/{name}": text for name, text in verb_pages().items()}
    pages["commands/index.md"] = overview()
    pages["index.md"] = as_page(root / "README.md")
    pages["changelog.md"] = as_page(root / "CHANGELOG.md")
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def as_page(path: Path) -> str:
    """A file of the root as a page of docs/: links lead from there."""
    text = path.read_text(encoding="utf-8")
    text = text.replace("[docs/](docs)", "docs/").replace("](CHANGELOG.md)", "](changelog.md)")
    return re.sub(r"\]\(docs/", "](", text)


def verbs() -> Iterator[tuple[str, Any, Any]]:
    """Words, command and context of every verb, in the order of `citycover --help`."""
    root = typer.main.get_command(app())
    context = root.make_context("citycover", ["-"], resilient_parsing=True)
    yield from _verbs_of(root, context, "")


def _verbs_of(group: Any, context: Any, before: str) -> Iterator[tuple[str, Any, Any]]:
    for name, command in group.commands.items():
        words = f"{before} {name}".strip()
        inner = command.make_context(name, ["-"], parent=context, resilient_parsing=True)
        if hasattr(command, "commands"):
            yield from _verbs_of(command, inner, words)
        else:
            yield words, command, inner


def overview() -> str:
    """All verbs, with the first sentence of each."""
    rows = [
        f"| [`citycover {words}`]({_file(words)}) | {_cell(command.help.partition(chr(10) * 2)[0])} |"
        for words, command, _ in verbs()
    ]
    head = "Every verb takes `--json`, `--verbose`, `--quiet`, `--log-file` and `--help`."
    return "\n".join(["# Commands", "", head, "", "| command | |", "|---|---|", *rows, ""])


def verb_pages() -> dict[str, str]:
    """Markdown by file name."""
    return {_file(words): _page(words, command, context) for words, command, context in verbs()}


def _file(words: str) -> str:
    return f"{words.replace(' ', '-')}.md"


def _page(words: str, command: Any, context: Any) -> str:
    given = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
    needed = [_name(p, context) for p in command.params if p.required and p.param_type_name == "option"]
    usage = " ".join(["citycover", words, *given, *needed, "[OPTIONS]"])
    shown = [p for p in command.params if not p.hidden and not set(p.opts) & set(_EVERYWHERE)]
    rows = [f"| `{_name(p, context)}` | {_cell(p.get_help_record(context)[1])} |" for p in shown]
    parts = [f"# citycover {words}", command.help, f"```sh\n{usage}\n```"]
    if rows:
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    parts.append("Also `--json`, `--verbose`, `--quiet`, `--log-file` and `--help`, as every verb.")
    return "\n\n".join(parts) + "\n"


def _name(parameter: Any, context: Any) -> str:
    """Option and value, or argument, as one writes it."""
    name: str = parameter.get_help_record(context)[0]
    if parameter.param_type_name == "argument":
        return name.partition(" <")[0]
    return re.sub(r"<(.+)>$", lambda found: _KINDS.get(found[1], found[1]), name)


def _cell(text: str) -> str:
    """Text in a table: on one line, its bars no borders, its angles and brackets no markup."""
    plain = " ".join(text.split())
    for sign in "|<[*_":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
