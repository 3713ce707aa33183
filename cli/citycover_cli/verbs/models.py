"""`citycover models`: which models and networks there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from citycover_cli import options, talk

app = typer.Typer(help="List the built-in models, or show one.", no_args_is_help=True)


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List the models that map without any training."""
    from citycover.builtins import read_builtins

    models = read_builtins()
    if as_json:
        talk.print_json([_facts(model.card) for model in models])
        return
    for model in models:
        bands = ", ".join(name for group in model.card.groups for name in group.names)
        typer.echo(f"{model.card.name:<16} {bands:<28} {model.card.description.splitlines()[0]}")


def _facts(card: Any) -> dict[str, Any]:
    """What other programs build on."""
    return {
        "name": card.name,
        "bands": [name for group in card.groups for name in group.names],
        "window": card.window.size,
        "output_scale": str(card.output_scale),
        "licence": card.licence,
    }


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Built-in name or model file.")], as_json: options.Json = False
) -> None:
    """Show one model: its card, sha256 and licence."""
    from citycover.builtins import find_model
    from citycover.modelfile import read_model_file
    from citycover_cli.verbs import inspect

    found = read_model_file(find_model(model))
    if as_json:
        talk.print_json(inspect.model_facts(found))
    else:
        inspect.print_model(found)
