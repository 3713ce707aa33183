"""The root of the command line: verbs, and errors turned into exit codes.

Verb files import what is heavy (torch, dask, rasterio) inside the verb, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from citycover.errors import ConfigError, MachineError
from citycover.version import __version__
from citycover_cli.endings import failure_of
from citycover_cli.logs import close_logging, log_only
from citycover_cli.output import say, settle_stdout
from citycover_cli.signals import Stopped, hear_signals
from citycover_cli.verbs import (
    collect,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    import_weights,
    inspect,
    plan,
    refine,
    sample,
    sharpen,
    stats,
    status,
    synth,
    train,
    vectorize,
    view,
)
from citycover_cli.verbs import map as map_
from citycover_cli.verbs import run as run_
from citycover_cli.verbs.models import app as models

app = typer.Typer(
    name="citycover",
    help="From imagery of a city to a finished, georeferenced land-cover product.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug keeps its plain traceback
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        say(f"citycover {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """From imagery of a city to a finished, georeferenced land-cover product."""


app.command("map", help=map_.HELP)(map_.run)

app.command("sharpen", help=sharpen.HELP)(sharpen.run)

app.command("run", help=run_.HELP)(run_.run)

app.command("status", help=status.HELP)(status.run)

app.command("plan", help=plan.HELP)(plan.run)

app.command("inspect", help=inspect.HELP)(inspect.run)

app.add_typer(models.app, name="models")

app.command("export", help=export.HELP)(export.run)

app.command("import-weights", help=import_weights.HELP)(import_weights.run)

app.command("evaluate", help=evaluate.HELP)(evaluate.run)

app.command("sample", help=sample.HELP)(sample.run)

app.command("refine", help=refine.HELP)(refine.run)

app.command("compare", help=compare.HELP)(compare.run)

app.command("stats", help=stats.HELP)(stats.run)

app.command("vectorize", help=vectorize.HELP)(vectorize.run)

app.command("view", help=view.HELP)(view.run)

app.command("collect", help=collect.HELP)(collect.run)

app.command("train", help=train.HELP)(train.run)

app.command("doctor", help=doctor.HELP)(doctor.run)

app.command("synth", help=synth.HELP)(synth.run)

app.command("demo", help=demo.HELP)(demo.run)


def verbs(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Words of every verb, in the order of `citycover --help`; a group comes before its own."""
    group = group or typer.main.get_command(app)
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
    code = app(args=words or ["--help"], prog_name="citycover", standalone_mode=False) or 0
    settle_stdout()
    log_only(logging.INFO, f"ended with exit code {code}")
    return int(code)
