"""`citycover synth`: a city to practise on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.progress import show_progress
from citycover_cli.verb import Talk, talking

HELP = """Write a procedural city at 1 m: RGBN image, true land cover, coarse label rasters.

The city is a function of its seed; memory does not depend on its size.
"""


@talking
def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write.")],
    size: Annotated[int, typer.Option(min=1, help="Side in pixels of 1 m.")] = 2048,
    seed: options.CitySeed = 0,
    sentinel2: Annotated[
        bool, typer.Option("--sentinel2", help="Also twelve bands at 10, 20 and 60 m.")
    ] = False,
    second_sensor: Annotated[
        bool, typer.Option("--second-sensor", help="Also as another camera sees it.")
    ] = False,
    threads: options.Threads = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a city that is there.")] = False,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.synth.write import write_city

    with show_progress("drawing", 1.0, talk.silent) as progress:
        result = write_city(
            folder,
            size,
            seed,
            sentinel2=sentinel2,
            second_sensor=second_sensor,
            progress=progress.update,
            threads=threads or 2,
            overwrite=overwrite,
        )
    if talk.as_json:
        print_json(
            {
                "folder": str(result.folder),
                "files": [path.relative_to(result.folder).as_posix() for path in result.files],
                "shares": result.shares,
                "mpx_per_s": round(result.mpx_per_s, 3),
            }
        )
    elif not talk.quiet:
        rows = [
            ("folder", str(result.folder)),
            ("files", "  ".join(path.relative_to(result.folder).as_posix() for path in result.files)),
            ("classes", ", ".join(f"{name} {share:.1%}" for name, share in result.shares.items())),
            ("legend", "city: evaluate and train take --legend city, sharpen and map --labels-legend city"),
            ("speed", f"{result.mpx_per_s:.2f} Mpx/s"),
        ]
        print_table("city", rows)
