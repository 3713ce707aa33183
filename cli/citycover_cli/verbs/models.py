"""`citycover models`: which models and networks there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover_cli import options, talk
from citycover_cli.verbs import models_bench

if TYPE_CHECKING:
    from citycover_models.facts import Facts

app = typer.Typer(help="List models and networks, show one, or measure its speed.", no_args_is_help=True)


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List the built-in models, which map as they are, and the networks, which are trained and exported."""
    from citycover.builtins import NAMES
    from citycover_models.facts import read_facts, trained_facts

    rows = (*read_facts(), *trained_facts())
    if as_json:
        talk.print_json([_plain(facts, built_in=facts.name in NAMES) for facts in rows])
        return
    width = max(len(facts.name) for facts in rows)
    typer.echo(f"{'name':<{width}}  {'parameters':>11}  GFLOP/Mpx  {'window':>6}  scale  bands")
    for facts in rows:
        star = " (built in)" if facts.name in NAMES else ""
        typer.echo(
            f"{facts.name:<{width}}  {facts.parameters:>11,}  {facts.gflop_per_mpx:>9,.1f}  "
            f"{facts.window:>6}  {facts.output_scale:>5}  {', '.join(facts.bands)}{star}"
        )


def _plain(facts: Facts, built_in: bool) -> dict[str, Any]:
    """What other programs build on."""
    from dataclasses import asdict

    return asdict(facts) | {"bands": list(facts.bands), "built_in": built_in}


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Network, built-in or model file.")],
    figure: Annotated[Path | None, typer.Option(help="Also draw the network into this .png or .svg.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show one: card, counts and licence notes, and for a network its parts as they run."""
    from citycover.builtins import NAMES, find_model
    from citycover.errors import ConfigError
    from citycover.modelfile import read_model_file
    from citycover_cli.verbs import inspect
    from citycover_models.facts import read_facts

    facts = next((row for row in read_facts() if row.name == model), None)
    if facts is None or model in NAMES:
        found = read_model_file(find_model(model))
        if as_json:
            talk.print_json(inspect.model_facts(found))
        else:
            inspect.print_model(found)
    elif as_json:
        talk.print_json(_plain(facts, built_in=False))
    else:
        _print_facts(facts)
    if facts is None:
        if figure is not None:
            raise ConfigError(f"--figure draws networks by name, got {model!r}; see `citycover models list`")
        return
    _draw(model, figure, text=not as_json)


def _print_facts(facts: Facts) -> None:
    sizes = f"{facts.window} only" if facts.fixed_window else f"{facts.window}, n x {facts.multiple}"
    field = facts.receptive_field
    talk.print_table(
        facts.name,
        [
            ("method", facts.paper),
            ("bands", ", ".join(facts.bands)),
            ("window", f"{sizes}; trim {facts.trim}, feather {facts.feather} until an export measures them"),
            ("output", f"{facts.task}, scale {facts.output_scale}"),
            ("parameters", f"{facts.parameters:,}"),
            ("operations", f"{facts.gflop_per_mpx:,.1f} kFLOP a pixel (GFLOP per Mpx)"),
            ("receptive field", "the whole window" if field is None else f"{field} x {field} pixels"),
            ("licence", facts.licence_note),
        ],
    )


def _draw(name: str, figure: Path | None, text: bool) -> None:
    from citycover_models.drawing import draw_figure, draw_text, parts_of
    from citycover_models.registry import find_preset

    if figure is not None:
        from citycover.matrix_figure import check_figure

        check_figure(figure)
    parts = parts_of(find_preset(name))
    if text:
        typer.echo("\nparts, as they run: output without the batch, parameters\n" + draw_text(parts))
    if figure is not None:
        from citycover.io.folder import machine_errors

        with machine_errors(figure):
            draw_figure(parts, name, figure)


app.command("bench")(models_bench.run)
