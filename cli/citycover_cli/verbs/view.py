"""`citycover view`: a page on this machine to look at products with."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from citycover_cli import options
from citycover_cli.output import note, print_json, print_table
from citycover_cli.signals import catch_signals
from citycover_cli.verb import Talk, talking

HELP = """Look at maps in the browser: image, classes, probabilities, areas, change."""


@talking
def run(
    maps: Annotated[
        list[str],
        typer.Argument(
            metavar="PRODUCT|FOLDER...",
            help="Products, or folders that hold some; on this machine, or s3://BUCKET/PREFIX.",
        ),
    ],
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Image to lay under the maps, again for each file; else what they were made of.",
        ),
    ] = None,
    map_legend: options.MapLegend = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; any but loopback lets others on the network look.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Else 8800, or a free one.")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser.")] = False,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.view.server import address_of, listen, open_app, serve

    trust = options.trust_of(allow_remote, allow_path)
    app, shown = open_app(maps, host, image=image or (), map_legend=map_legend, trust=trust)
    held = listen(host, port)
    address = address_of(held)

    def ready() -> None:
        if talk.as_json:
            print_json({"address": address, "maps": [one.name for one in shown]})
        elif not talk.quiet:
            print_table(address, [(one.name, one.time or "time not known") for one in shown])
            note("Ctrl-C ends it")
        if not no_open:
            webbrowser.open(address)

    with catch_signals() as (stop, caught):
        serve(app, held, stop, ready)
    if caught:
        raise typer.Exit(128 + caught[0])  # the way that it ends: nothing to say, and stdout has its document
