"""`citycover plan`: what a run would do, before it does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover_cli import options
from citycover_cli.output import duration, mebibytes, print_json, print_table
from citycover_cli.verb import Talk, heavy, talking

if TYPE_CHECKING:
    from citycover.job.job import Job

HELP = """Say what `map` would do: windows, redundancy, bytes to read, memory, and time from a short probe."""


@talking
@heavy
def run(
    scene: options.Scene,
    model: options.Model = None,
    bands: options.Bands = None,
    nodata: options.Nodata = None,
    aoi: options.Aoi = None,
    bbox: options.Bbox = None,
    window: options.Window = None,
    trim: options.Trim = None,
    feather: options.Feather = None,
    batch: options.Batch = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    resample: options.Resample = False,
    probe: Annotated[bool, typer.Option(help="Run the network for a moment to estimate the time.")] = True,
    *,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.job.job import prepare
    from citycover.job.request import MapRequest, parse_bbox, split_bands

    request = MapRequest(
        scene=tuple(scene),
        out=Path(),
        model=model,
        bands=split_bands(bands),
        nodata=nodata,
        aoi=aoi,
        bbox=parse_bbox(bbox),
        window=window,
        trim=trim,
        feather=feather,
        batch=batch,
        device=device,
        threads=threads,
        resample=resample,
    )
    job = prepare(request)
    facts = describe(job) | (_probe(job) if probe else {})
    if talk.as_json:
        print_json(facts)
    else:
        print_table("plan", _rows(facts))


def describe(job: Job) -> dict[str, Any]:
    """The plan as plain values."""
    totals = job.totals
    return {
        "model": job.model.card.name,
        "gsd_m": round(job.scene.gsd, 4),
        **job.plan.facts(),
        "read_bytes": totals.read_bytes,
        "write_bytes": totals.write_bytes,
        "disk_bytes": 2 * totals.write_bytes,
        "engine_memory_bytes": totals.memory.total,
    }


def _probe(job: Job) -> dict[str, Any]:
    """Load the network and run it for a moment."""
    import torch

    from citycover.compute.choices import default_batch
    from citycover.compute.trials import measure_speed
    from citycover.machine.device import choose_device
    from citycover.machine.memory import peak_rss
    from citycover.model.predictor import ModelPredictor

    if job.request.threads:
        torch.set_num_threads(job.request.threads)
    predictor = ModelPredictor.load(job.model.path, choose_device(job.request.device))
    batch = job.request.batch or default_batch(job.plan, predictor.device)
    plan = replace(job.plan, batch=batch)
    speed = measure_speed(plan, predictor)
    from citycover.plan.cost import memory_bound

    engine = memory_bound(plan, job.scene, len(job.model.card.channels)).total
    return {
        "batch": batch,
        "device": str(predictor.device),
        "seconds": round(speed.seconds(plan), 3),
        "engine_memory_bytes": engine,
        "peak_memory_bytes": peak_rss() + engine,
    }


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    height, width = facts["shape"]
    window = "{} x {}".format(*facts["window"])
    rows = [
        ("model", f"{facts['model']}, scene at {facts['gsd_m']:g} m"),
        ("output", f"{height} x {width} px = {height * width / 1e6:.1f} Mpx"),
        ("windows", f"{facts['windows']} of {window} px, trim {facts['trim']}, feather {facts['feather']}"),
        ("redundancy", f"{facts['redundancy']:.2f}"),
        ("blocks", "{} x {}, each up to {} x {} px".format(*facts["blocks"], *facts["block_shape"])),
        ("to read", mebibytes(facts["read_bytes"]) + " of decoded pixels"),
        ("to write", mebibytes(facts["write_bytes"]) + " before compression"),
    ]
    if "seconds" in facts:
        rows.append(("peak memory", "at most " + mebibytes(facts["peak_memory_bytes"])))
        rows.append(
            ("time", f"about {duration(facts['seconds'])} on {facts['device']}, batch {facts['batch']}")
        )
    else:
        rows.append(("memory", mebibytes(facts["engine_memory_bytes"]) + " beside program and network"))
    return rows
