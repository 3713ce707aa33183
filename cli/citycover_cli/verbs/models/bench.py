"""`citycover models bench`: how fast a model runs here."""

from __future__ import annotations

from typing import Annotated

import typer

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.verb import Talk, heavy, talking


@talking
@heavy
def run(
    model: Annotated[str, typer.Argument(help="Built-in name or model file.")],
    require_hash: options.RequireHash = None,
    window: options.Window = None,
    batch: Annotated[int, typer.Option(min=1, help="Windows together.")] = 1,
    device: options.Device = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="Turns; the medians are shown.")] = 5,
    *,
    talk: Talk,
) -> None:
    """Measure pixels a second of each form and precision on this machine, in turns."""
    from dataclasses import asdict

    from citycover.machine.device import choose_device
    from citycover.model.archive import read_model_file
    from citycover.model.bench import bench_model
    from citycover.model.builtin import find_model
    from citycover.model.trusted import check_trusted

    file = read_model_file(find_model(model))
    check_trusted(file.path, file.sha256, require_hash)
    rows = bench_model(file, choose_device(device), window=window, batch=batch, repeats=repeats)
    if talk.as_json:
        print_json([asdict(row) for row in rows])
        return
    best = max(row.mpx_per_s for row in rows)
    print_table(
        f"{file.card.name}: Mpx/s of input, window {window or file.card.window.size}, batch {batch}; "
        "* is the fastest",
        [
            (
                f"{row.form}, {row.precision}",
                f"{row.mpx_per_s:8.3g}" + (" *" if row.mpx_per_s == best else "  ") + f" {row.note}",
            )
            for row in rows
        ],
    )
