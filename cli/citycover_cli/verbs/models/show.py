"""`citycover models show`: one model in numbers and as a drawing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from citycover_cli.cards import model_facts, print_model
from citycover_cli.output import print_json, print_table, say
from citycover_cli.verb import Talk, talking
from citycover_cli.verbs.models.list import plain_facts

if TYPE_CHECKING:
    from citycover_models.catalogue.counts import Facts


@talking
def run(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Network, built-in or model file.")],
    figure: Annotated[Path | None, typer.Option(help="Also draw the network into this .png or .svg.")] = None,
    *,
    talk: Talk,
) -> None:
    """Show one: card, counts and licence notes, and for a network its parts as they run."""
    from citycover.errors import ConfigError
    from citycover.model.archive import read_model_file
    from citycover.model.builtin import NAMES, find_model
    from citycover_models.catalogue.counts import read_facts

    facts = next((row for row in read_facts() if row.name == model), None)
    if facts is None or model in NAMES:
        found = read_model_file(find_model(model))
        if talk.as_json:
            print_json(model_facts(found))
        else:
            print_model(found)
    elif talk.as_json:
        print_json(plain_facts(facts, built_in=False))
    else:
        _print_facts(facts)
    if facts is None:
        if figure is not None:
            raise ConfigError(f"--figure draws networks by name, got {model!r}; see `citycover models list`")
        return
    _draw(model, figure, text=not talk.as_json)


def _print_facts(facts: Facts) -> None:
    sizes = f"{facts.window} only" if facts.fixed_window else f"{facts.window}, n x {facts.multiple}"
    field = facts.receptive_field
    print_table(
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
    from citycover_models.catalogue.drawing import draw_figure, draw_text, parts_of
    from citycover_models.catalogue.registry import find_preset

    if figure is not None:
        from citycover.draw.figure import check_figure
        from citycover.product.folder import check_output

        check_figure(figure)
        check_output(figure)
    parts = parts_of(find_preset(name))
    if text:
        say("\nparts, as they run: output without the batch, parameters\n" + draw_text(parts))
    if figure is not None:
        from citycover.files.failures import machine_errors

        with machine_errors(figure):
            draw_figure(parts, name, figure)
