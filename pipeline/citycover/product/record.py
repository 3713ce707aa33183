"""map_scene: from files to a product folder. The facade for the command line and for Python users.

prepare (describe, choose the model, plan) -> settle (device, precision, batch) -> blocks into the working
store -> publish. Preparing reads no pixel; everything after it is recorded in `run.json`.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio

from citycover.machine.memory import peak_rss
from citycover.machine.stages import SWEEP_STAGES
from citycover.product.finished import Finished
from citycover.read.reader import Hole
from citycover.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Product:
    """What a run left."""

    folder: Path
    files: tuple[Path, ...]
    holes: tuple[Hole, ...]
    """What could not be read; nodata in the product."""
    shares: dict[str, float]
    """Share of each class in the valid pixels, by name."""
    run: dict[str, Any]
    """Content of run.json."""


def holes_by_file(holes: Sequence[Hole]) -> list[dict[str, Any]]:
    """Holes as plain values, for `run.json`."""
    return [{**asdict(h.window), "path": h.path, "reason": h.reason} for h in holes]


def run_facts(run: Finished, shares: dict[str, float]) -> dict[str, Any]:
    """Content of run.json: provenance, plan and figures."""
    job, plan = run.job, run.plan
    seconds = run.stages.seconds()
    sweep = seconds.get("sweep", 0.0)
    inside = {name: seconds.get(name, 0.0) for name in SWEEP_STAGES}
    inside["other"] = max(0.0, sweep - sum(inside.values()))
    return {
        "request": job.request.facts(),
        "model": {"name": job.model.card.name, "version": job.model.card.version, "sha256": job.model.sha256},
        "card": job.model.card.model_dump(mode="json"),
        "inputs": [
            {"path": p, "bytes": size, "mtime_ns": mtime} for p, size, mtime in job.scene.fingerprints
        ],
        "gsd": job.scene.gsd,
        "time": job.scene.time,
        "plan": plan.facts(),
        "identity": job.identity(plan),
        "versions": versions(),
        "holes": holes_by_file(run.holes),
        "shares": shares,
        "wall_s": round(time.perf_counter() - run.begin, 3),
        "sweep_s": round(sweep, 3),
        "stages": {k: round(v, 3) for k, v in ({"start": seconds.get("start", 0.0)} | inside).items()},
        "beside": {k: round(seconds.get(k, 0.0), 3) for k in ("read", "encode")},
        "forward_share": round(seconds.get("forward", 0.0) / sweep, 4) if sweep else 0.0,
        "redundancy": round(plan.redundancy, 4),
        "pixels": plan.shape[0] * plan.shape[1],
        "windows": run.written_windows,
        "workers": run.workers,
        "peak_rss_bytes": max(peak_rss(), run.worker_peak_rss),
        "device": run.device,
        "precision": plan.precision,
        "seams": run.seams.facts() if run.seams else None,
    }


def versions() -> dict[str, str]:
    """Versions of what decides the pixels."""
    found = {name: version(name) for name in ("torch", "rasterio", "numpy", "odc-geo")}
    return {
        "citycover": __version__,
        **found,
        "gdal": rasterio.__gdal_version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
