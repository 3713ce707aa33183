"""`citycover export`: a network into a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citycover_cli import talk

HELP = """Write a model file: a built-in network by name, or a TorchScript file of your own with a card.

`citycover export --torchscript FILE --card card.toml -o model.pt` checks inputs and outputs of the network
against the card by a probe, and puts the card inside.
"""


def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")],
    name: Annotated[str | None, typer.Argument(help="A built-in network.")] = None,
    torchscript: Annotated[Path | None, typer.Option(help="TorchScript file made elsewhere.")] = None,
    card: Annotated[Path | None, typer.Option(help="Its card, see docs/card.md.")] = None,
) -> None:
    """See HELP."""
    from citycover.errors import ConfigError

    if (name is None) == (torchscript is None):
        raise ConfigError(
            "give either the name of a built-in network, or --torchscript FILE with --card FILE"
        )
    if torchscript is not None and card is None:
        raise ConfigError(
            f"--torchscript {torchscript} needs --card FILE; docs/card.md says what stands in it"
        )
    from citycover.io.folder import machine_errors
    from citycover_models import export

    with machine_errors(out):
        if torchscript is not None and card is not None:
            report = export.adopt_torchscript(torchscript, card, out)
        else:
            report = export.export_preset(str(name), out)
    talk.print_table(
        "exported",
        [
            ("model", f"{report.card.name} {report.card.version}"),
            ("file", f"{report.path} ({report.format})"),
            ("sha256", report.sha256),
            (
                "checked",
                f"on windows of {', '.join(map(str, report.sides))} px: differs by {report.difference:.1e}",
            ),
        ],
    )
