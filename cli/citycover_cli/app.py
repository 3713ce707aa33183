"""The root of the command line: verbs, and errors turned into exit codes.

Verb files import what is heavy (torch, dask, rasterio) inside the verb, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from citycover.errors import CitycoverError, is_out_of_memory
from citycover.version import __version__
from citycover_cli.verbs import (
    demo,
    evaluate,
    export,
    import_weights,
    inspect,
    plan,
    sample,
    synth,
    train,
)
from citycover_cli.verbs import map as map_
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
        typer.echo(f"citycover {__version__}")
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

app.command("plan", help=plan.HELP)(plan.run)

app.command("inspect", help=inspect.HELP)(inspect.run)

app.add_typer(models.app, name="models")

app.command("export", help=export.HELP)(export.run)

app.command("import-weights", help=import_weights.HELP)(import_weights.run)

app.command("evaluate", help=evaluate.HELP)(evaluate.run)

app.command("sample", help=sample.HELP)(sample.run)

app.command("train", help=train.HELP)(train.run)

app.command("synth", help=synth.HELP)(synth.run)

app.command("demo", help=demo.HELP)(demo.run)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; leave with its exit code.

    0 done, 2 input or configuration, 3 done with holes, 4 environment, 130 / 143 stopped by a signal.
    """
    try:
        app(args=arguments)
    except CitycoverError as error:
        typer.echo(f"citycover: error: {error}", err=True)
        sys.exit(error.exit_code)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        typer.echo("citycover: error: out of memory; give --memory, a smaller --batch or --window", err=True)
        sys.exit(4)
    except BrokenPipeError:
        sys.exit(0)
