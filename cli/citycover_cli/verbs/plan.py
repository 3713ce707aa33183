"""`citycover plan`: what a run would do, before it does it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from citycover.evidence.request import LabelRequest
from citycover.job.request import EngineOptions, Imagery, Where
from citycover_cli import options
from citycover_cli.output import duration, mebibytes, print_json, print_table
from citycover_cli.verb import Talk, heavy, talking

if TYPE_CHECKING:
    from citycover.job.job import Job
    from citycover.plan.plan import Plan

HELP = """Say what `map` would do with the same scene, model and labels: windows, blocks, memory, time.

What metadata cannot tell is settled as `map` settles it, by short trials on the device;
--no-probe leaves it open.
"""


@talking
@heavy
@options.grouped
def run(
    *,
    imagery: Imagery,
    model: options.Model = None,
    tta: options.Tta = "none",
    require_hash: options.RequireHash = None,
    where: Where,
    engine: EngineOptions,
    labels: LabelRequest | None,
    layers: tuple[str, ...],
    probe: Annotated[
        bool, typer.Option(help="Load the network and try it: settles the run and estimates its time.")
    ] = True,
    talk: Talk,
) -> None:
    """See HELP."""
    from citycover.job.job import prepare

    job = prepare(imagery, model, where, engine, labels, require_hash, layers, tta)
    facts = _settled(job) if probe else _draft(job)
    if talk.as_json:
        print_json(facts)
    else:
        print_table("plan", _rows(facts))


def _draft(job: Job) -> dict[str, Any]:
    """What metadata alone tells, and what it leaves open."""
    asked = job.engine
    unsettled = {
        "window": asked.window is None and not job.model.card.window.fixed,
        "batch": asked.batch is None or asked.memory is not None,
        "precision": asked.precision == "auto",
        "form": asked.form == "auto",
        "block_shape": asked.memory is not None,
    }
    return {
        **_facts(job, job.draft),
        "engine_memory_bytes": job.totals(job.draft).memory.total,
        "unsettled": [name for name, open_ in unsettled.items() if open_],
    }


def _settled(job: Job) -> dict[str, Any]:
    """The run that `map` would make, and what a trial promises of it."""
    from citycover.run.forecast import forecast_job

    found = forecast_job(job)
    return {
        **_facts(job, found.settled.plan),
        "engine_memory_bytes": found.engine_memory,
        "unsettled": [],
        "label_noise": found.settled.belief.share if found.settled.belief else None,
        "label_offset": asdict(found.settled.belief.offset) if found.settled.belief else None,
        "device": found.settled.device,
        "threads": found.settled.threads,
        "workers": found.workers,
        "seconds": round(found.seconds, 3),
        "peak_memory_bytes": found.peak_memory,
    }


def _facts(job: Job, plan: Plan) -> dict[str, Any]:
    """A plan as plain values."""
    from citycover.evidence.noise import evidence_words

    totals = job.totals(plan)
    return {
        "model": job.model.card.name,
        "gsd_m": round(job.scene.gsd, 4),
        "composite": job.scene.composite,
        "dates": list(job.scene.dates),
        "filled": list(job.scene.filled),
        **plan.facts(),
        "layers": [layer.name for layer in job.layers],
        "evidence": evidence_words(job.labels is not None),
        "read_bytes": totals.read_bytes,
        "write_bytes": totals.write_bytes,
        "disk_bytes": 2 * totals.write_bytes,
    }


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    height, width = facts["shape"]
    window = "{} x {}".format(*facts["window"])
    rows = [
        ("model", f"{facts['model']}, scene at {facts['gsd_m']:g} m"),
        ("output", f"{height} x {width} px = {height * width / 1e6:.1f} Mpx"),
        ("windows", f"{facts['windows']} of {window} px, trim {facts['trim']}, feather {facts['feather']}"),
        *([("dates", f"{facts['composite']} of {', '.join(facts['dates'])}")] if facts["dates"] else []),
        *([("not there", f"{', '.join(facts['filled'])}: filled")] if facts["filled"] else []),
        ("redundancy", f"{facts['redundancy']:.2f}"),
        ("blocks", "{} x {}, each up to {} x {} px".format(*facts["blocks"], *facts["block_shape"])),
        ("evidence", _evidence(facts)),
        ("layers", ", ".join(facts["layers"])),
        ("to read", mebibytes(facts["read_bytes"]) + " of decoded pixels"),
        ("to write", mebibytes(facts["write_bytes"]) + " before compression"),
    ]
    if "seconds" in facts:
        rows.append(("peak memory", "at most " + mebibytes(facts["peak_memory_bytes"])))
        how = f"{facts['form']} {facts['precision']}, batch {facts['batch']}, {facts['threads']} threads"
        if facts["workers"] > 1:
            how += f" in each of {facts['workers']} processes"
        rows.append(("time", f"about {duration(facts['seconds'])} on {facts['device']}: {how}"))
    else:
        rows.append(("memory", mebibytes(facts["engine_memory_bytes"]) + " beside program and network"))
        rows.append(("not settled", ", ".join(facts["unsettled"]) or "nothing"))
    return rows


def _evidence(facts: dict[str, Any]) -> str:
    """Whether labels of the place are beside the network, and how far they are trusted."""
    noise, offset = facts.get("label_noise"), facts.get("label_offset")
    if noise is None or offset is None:
        return str(facts["evidence"])
    return f"{facts['evidence']}, {1 - noise:.0%} trusted, {'moved' if offset['sure'] else 'where they are'}"
