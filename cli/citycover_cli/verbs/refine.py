"""`citycover refine`: a tidier map from a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

HELP = """Tidy a map up: merge classes, vote speckle down, drop small patches, burn in trusted vectors."""


@talking
def run(
    product: Annotated[
        str,
        typer.Argument(metavar="PRODUCT", help="Product (folder, or s3://BUCKET/PREFIX); it stays as it is."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder of the new product, or s3://BUCKET/PREFIX.")
    ],
    to: Annotated[
        str | None, typer.Option(help="First: merge classes by the table of this legend (name or file).")
    ] = None,
    majority: Annotated[
        int | None, typer.Option(help="Then: each pixel takes the class of most in a square of N pixels.")
    ] = None,
    min_area: Annotated[
        float, typer.Option(min=0, help="Then: smaller patches (m2) go to their longest neighbour.")
    ] = 0.0,
    burn: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE=CLASS", help="Last: what these polygons cover is CLASS; again for more."),
    ] = None,
    overwrite: options.Overwrite = False,
    allow_remote: options.AllowRemote = False,
    allow_path: options.AllowPath = None,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.derive.refine import Steps, refine

    steps = Steps(to, majority, min_area, tuple(_burn(text) for text in burn or ()))
    with show_progress("refining", 1.0, talk.silent) as progress:
        found = refine(
            product,
            output,
            steps,
            overwrite=overwrite,
            trust=options.trust_of(allow_remote, allow_path),
            progress=progress.update,
        )
    if talk.as_json:
        facts = {"folder": str(found.folder), "pixels": found.pixels, "changed": found.changed}
        print_json(facts | {"steps": steps.facts()})
    elif not talk.quiet:
        share = found.changed / max(1, found.pixels)
        print_table(str(found.folder), [("pixels", f"{found.pixels:,}"), ("changed", f"{share:.2%}")])


def _burn(text: str) -> tuple[Path, str]:
    from citycover.errors import ConfigError

    path, _, name = text.rpartition("=")
    if not path or not name:
        raise ConfigError(f"--burn takes FILE=CLASS, as in water.gpkg=Water; got {text!r}")
    return Path(path), name
