"""How `--help` calls what an option takes: in words, not in the types of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

_WORDS: dict[Any, str] = {
    bool: "",
    int: "N",
    float: "NUMBER",
    str: "TEXT",
    list[str]: "TEXT",
    Path: "PATH",
    list[Path]: "PATH",
}


class _InWords:
    """Beside a command of typer."""

    def get_params(self, ctx: Any) -> Any:
        """All parameters of the command: options without a word of their own get one by their type."""
        params = super().get_params(ctx)  # type: ignore[misc]  # of the command
        for param in params:
            kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""  # noqa: ARG005  # its name says what it is
            elif param.metavar is None and kind in _WORDS:
                param.metavar = _WORDS[kind]
        return params


class Command(_InWords, TyperCommand):
    """A verb."""


class Group(_InWords, TyperGroup):
    """Verbs."""
