"""The root of the command line: verbs, and errors turned into exit codes.

Only the verb that is asked for is imported, and what is heavy (torch, dask, rasterio) inside of it, so that
`--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from citycover.errors import ConfigError, MachineError
from citycover.version import __version__
from citycover_cli.endings import failure_of
from citycover_cli.help import Command, Group
from citycover_cli.logs import close_logging, log_only
from citycover_cli.output import StdoutError, say, settle_stdout
from citycover_cli.signals import Stopped, hear_signals

_PARTS = {
    "Make a map": ("map", "sharpen", "plan", "inspect", "run", "status"),
    "Judge a map, and use it": (
        "evaluate", "sample", "view", "stats", "compare", "refine", "vectorize", "collect",
    ),
    "Networks": ("train", "export", "import-weights", "models"),
    "Try out": ("doctor", "demo", "synth"),
}  # fmt: skip
"""Verbs below the titles of `citycover --help`; each is a module in `verbs`, with `run` and its HELP."""

_TITLES = {verb: title for title, verbs in _PARTS.items() for verb in verbs}

VERBS = tuple(_TITLES)

_PACKAGES = ("models",)
"""Those that are packages there, whose `app` has verbs of its own."""

_NOT_GIVEN = {
    "help": False,
    "install_completion": False,
    "show_completion": False,
    **{group: {"help": False} for group in _PACKAGES},
}
"""Typer imports pydantic, which takes as long as all else of it, to convert what has no value."""


def _print_version(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:  # a shell asks for words to complete
        say(f"citycover {__version__}")
        raise typer.Exit


def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """From imagery of a city to a finished, georeferenced land-cover product."""


@cache
def app(names: tuple[str, ...] = VERBS) -> typer.Typer:
    """The command line with these verbs, which are imported here: a command waits for its own alone."""
    line = typer.Typer(
        name="citycover",
        cls=Group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a bug keeps its plain traceback
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"], "default_map": _NOT_GIVEN},
    )
    line.callback()(root)
    for name in names:
        module = f"citycover_cli.verbs.{name.replace('-', '_')}"
        if name in _PACKAGES:
            line.add_typer(import_module(f"{module}.app").app, name=name, rich_help_panel=_TITLES[name])
        else:
            verb = import_module(module)
            line.command(name, cls=Command, help=verb.HELP, rich_help_panel=_TITLES[name])(verb.run)
    return line


def verbs(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Words of every verb, in the order of `citycover --help`; a group comes before its own."""
    group = group or typer.main.get_command(app())
    for name, command in group.commands.items():
        yield (*before, name)
        if hasattr(command, "commands"):
            yield from verbs(command, (*before, name))


def main(arguments: list[str] | None = None) -> None:
    """Run a command; leave with its exit code, which `endings` explains.

    Args:
        arguments: words of the command line; None: those of this process.
    """
    words = sys.argv[1:] if arguments is None else arguments
    with hear_signals() as caught:
        try:
            code = _run(words)
        except BaseException as error:
            # An import that a signal broke may fail in any way.
            failure = failure_of(Stopped(caught[0])) if caught and not isinstance(error, Stopped) else None
            failure = failure or failure_of(error)
            if failure is None:
                raise
            failure.report("--json" in words)
            code = failure.exit_code
            with suppress(StdoutError):
                settle_stdout()  # what is buffered yet would fail as Python ends, with a code of its own
        finally:
            close_logging()
    sys.exit(code)


def _run(words: list[str]) -> int:
    """The exit code of a command that did not fail.

    Raises:
        ConfigError: a word is no text.
        MachineError: there is no working folder any more.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise MachineError(
            f"the working folder cannot be looked at ({error.strerror}); it may have been removed: "
            "change into another one (cd), and run the command again there"
        ) from None
    for word in words:
        if any("\ud800" <= c <= "\udfff" for c in word):
            raise ConfigError(f"{word!r} is not UTF-8, as names of files must be here; rename it")
    line = app((words[0],) if words and words[0] in VERBS else VERBS)
    asks_nothing = not words or (len(words) == 1 and words[0] in _PACKAGES)
    more = ["--help"] if asks_nothing else []
    code = line(args=[*words, *more], prog_name="citycover", standalone_mode=False) or 0
    settle_stdout()
    log_only(logging.INFO, f"ended with exit code {code}")
    return int(code)
