"""`citycover collect`: a folder of products as one catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from citycover_cli.output import print_json, print_table
from citycover_cli.verb import Talk, talking

HELP = """Write FOLDER/collection.json: the products below FOLDER as a STAC collection.

Any STAC reader (QGIS, pystac, stac-browser) opens it. The products are not changed; run it again when there
are new ones.
"""


@talking
def run(
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="Holds products, each in its folder; or s3://BUCKET/PREFIX."),
    ],
    title: Annotated[str | None, typer.Option(help="Of the collection; else the name of FOLDER.")] = None,
    licence: Annotated[
        str, typer.Option("--license", help="Of the maps: an SPDX identifier, as CC-BY-4.0, or other.")
    ] = "other",
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.product.collection import collect

    done = collect(folder, title=title, licence=licence)
    if talk.as_json:
        print_json({"collection": str(done.path), "products": [str(p) for p in done.products]})
    elif not talk.quiet:
        rows = [("collection", str(done.path)), ("products", "\n".join(map(str, done.products)))]
        print_table("collected", rows)
