"""`citycover models bench`: how fast a model runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from citycover_cli import options
from citycover_cli.output import print_json, print_table
from citycover_cli.verb import Talk, heavy, talking

if TYPE_CHECKING:
    from citycover.model.bench import BenchRow


@talking
@heavy
def run(
    model: Annotated[str, typer.Argument(help="Built-in name or model file.")],
    scene: Annotated[
        list[str] | None,
        typer.Option(
            help="Take windows of this scene; `map` knows from then on what is fastest. Several: its files."
        ),
    ] = None,
    require_hash: options.RequireHash = None,
    window: options.Window = None,
    batch: options.Batch = None,
    device: options.Device = "auto",
    form: options.Form = "auto",
    precision: options.Precision = "auto",
    threads: options.Threads = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns at least; the least times are shown.")] = 5,
    *,
    talk: Talk,
) -> None:
    """Measure pixels a second of each form and precision on this machine, in turns."""
    from dataclasses import asdict

    from citycover.run.bench import bench_on_scene, bench_random

    engine = options.engine(
        window=window, batch=batch, device=device, form=form, precision=precision, threads=threads
    )
    if scene:
        rows = bench_on_scene(model, scene, engine, require_hash=require_hash, repeats=repeats)
    else:
        rows = bench_random(model, engine, require_hash=require_hash, repeats=repeats)
    if talk.as_json:
        print_json([asdict(row) for row in rows])
        return
    best = max((row.mpx_per_s for row in rows if row.passes), default=0.0)
    title = f"{model}: Mpx/s of input, and pixels of another class than by torch in fp32; * is the fastest"
    print_table(title, [(f"{row.form}, {row.precision}", _told(row, best)) for row in rows])


def _told(row: BenchRow, best: float) -> str:
    if not row.mpx_per_s:
        return row.note
    mark = "*" if row.passes and row.mpx_per_s == best else " "
    says = "only near-ties flip" if row.passes else "flips more than near-ties: never taken by itself"
    return (
        f"{row.mpx_per_s:8.3g} {mark} {row.disagreement:8.3%}  first after {row.first_s:.2g} s; "
        f"{'exact' if row.passes and not row.disagreement else says}"
    )
