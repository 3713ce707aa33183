"""`citycover export`: a network into a model file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from citycover_models.export.network import PresetExport
    from citycover_models.export.write import ExportReport

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.verb import Talk, talking

HELP = """Write a model file: a network by name, or a TorchScript file of your own with a card.

`citycover export NAME --weights W -o model.pt` takes a network of `citycover models list`, folds what only
training needs, measures trim and feather, tries bf16, proves that the written form equals the network, and
puts the card inside. The ending .pt2, or --format pt2, writes an ExportedProgram instead of TorchScript.

`citycover export --torchscript FILE --card card.toml -o model.pt` checks inputs and outputs of the network
against the card by a probe, and puts the card inside.
"""


@partial(talking, least=1)  # steps can take minutes: say which one it is
def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")],
    name: Annotated[str | None, typer.Argument(help="A network of `citycover models list`.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Its weights: .safetensors, or a checkpoint of tensors.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="torchscript, pt2, or auto: by the ending of --out.")
    ] = "auto",
    margins: Annotated[
        str, typer.Option(help="Trim and feather: measure them, or keep those of the card.")
    ] = "measure",
    torchscript: Annotated[Path | None, typer.Option(help="TorchScript file made elsewhere.")] = None,
    card: Annotated[Path | None, typer.Option(help="Its card, see docs/card.md.")] = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.errors import ConfigError

    options.check_choice("--format", form, ("auto", "torchscript", "pt2"))
    options.check_choice("--margins", margins, ("measure", "card"))
    if (name is None) == (torchscript is None):
        raise ConfigError("give either the name of a network, or --torchscript FILE with --card FILE")
    if torchscript is not None and card is None:
        raise ConfigError(
            f"--torchscript {torchscript} needs --card FILE; docs/card.md says what stands in it"
        )
    from citycover.files.failures import machine_errors
    from citycover.product.folder import check_output
    from citycover_models.export.adopt import adopt_torchscript
    from citycover_models.export.network import export_preset

    if out.suffix not in (".pt", ".pt2"):
        raise ConfigError(f"a model file ends in .pt or .pt2; got --out {out}; name it so")
    check_output(out, weights, torchscript, card)
    with machine_errors(out):
        if torchscript is not None and card is not None:
            report, rows = adopt_torchscript(torchscript, card, out), []
        else:
            done = export_preset(
                str(name),
                out,
                weights=weights,
                form=None if form == "auto" else form,  # type: ignore[arg-type]  # checked above
                measure=margins == "measure",
            )
            report, rows = done.report, _rows(done)
    if talk.as_json:
        facts = {name: getattr(report, name) for name in ("path", "sha256", "format", "sides", "difference")}
        print_json({**facts, "card": report.card.model_dump(mode="json")})
    else:
        _print_report(report, rows)


def _print_report(report: ExportReport, rows: list[tuple[str, str]]) -> None:
    sides = ", ".join(map(str, report.sides))
    print_table(
        "exported",
        [
            ("model", f"{report.card.name} {report.card.version}"),
            ("file", f"{report.path} ({report.format})"),
            ("sha256", report.sha256),
            *rows,
            ("checked", f"on windows of {sides} px: differs by {report.difference:.1e}"),
        ],
    )


def _rows(done: PresetExport) -> list[tuple[str, str]]:
    """Weights, margins and precision for people."""
    card = done.report.card
    rows = [("weights", str(done.loaded) if done.loaded else card.training or "none")]
    for what in ("skipped", "missing") if done.loaded else ():
        names = getattr(done.loaded, what)
        if names:
            rows.append((what, ", ".join(names[:8]) + " ..." * (len(names) > 8)))
    how = "from the card: not measured, or one class filled the probe"
    if done.margins is not None:
        end = "few enough" if done.margins.enough else "wider trims gain little"
        how = f"measured: {done.margins.left:.3%} of pixels still differ, {end}"
    rows.append(("margins", f"trim {card.trim}, feather {card.feather} ({how})"))
    says = {"any": "bf16 flips near-ties only", "fp32": "fp32 only: bf16 flips more than near-ties"}
    rows.append(("precision", says[card.precision]))
    return rows
