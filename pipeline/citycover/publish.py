"""From the working store to the product folder: COGs, STAC item, run.json, preview."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rasterio

from citycover import __version__
from citycover.facts import to_json
from citycover.io.cog import CogInfo, Compression, Statistics, write_cog
from citycover.io.folder import ProductFolder
from citycover.io.overview import Picture, read_picture
from citycover.io.preview import PreviewInput, write_preview
from citycover.io.reader import Hole
from citycover.io.stac import ItemContent, ModelSource, ProductFile, describe_cog, describe_file, write_item
from citycover.io.store import WorkingStore, write_atomic
from citycover.io.tiff import BandInfo
from citycover.planning import MAX_BLOCK_WIDTH, Plan
from citycover.probe import peak_rss
from citycover.product import Job, Product, holes_by_file
from citycover.seams import Seams
from citycover.stages import SWEEP_STAGES, Stages
from citycover.window import Window

_PREVIEW_SIDE = 1000


@dataclass(frozen=True)
class Finished:
    """A run whose blocks are all in the store."""

    job: Job
    plan: Plan
    store: WorkingStore
    device: str
    stages: Stages
    begin: float
    """`time.perf_counter()` when the run began."""
    seams: Seams | None = None
    """None: not asked for."""
    workers: int = 1
    """Processes that computed."""
    worker_peak_rss: int = 0
    """Bytes of memory that one of them held at most, if they are other processes than this one."""

    @cached_property
    def holes(self) -> tuple[Hole, ...]:
        """All holes that the ledger knows, each once."""
        records = self.store.finished().values()
        return tuple(dict.fromkeys(hole for record in records for hole in record.holes))

    @cached_property
    def written_windows(self) -> dict[str, int]:
        """Windows of the whole run, those of earlier processes too."""
        total = {"run": 0, "skipped": 0}
        for record in self.store.finished().values():
            for name in total:
                total[name] += record.counts.get(name, 0)
        return total


def publish(run: Finished, folder: ProductFolder) -> Product:
    """Write every file of the product beside the store, then rename them into the folder."""
    with run.stages.time("publish"), ThreadPoolExecutor(1, thread_name_prefix="picture") as pool:
        picture = pool.submit(_read_picture, run)  # while the rasters are written
        files, statistics = _write_rasters(run, folder.staging)
        legend = run.job.model.card.legend
        counts = {c.id: statistics.counts.get(c.id, 0) for c in legend.classes}
        shares = {c.name: counts[c.id] / statistics.valid for c in legend.classes if counts[c.id]}
        _write_preview(run, folder.staging, picture.result(), counts)
        files = [*files, describe_file(folder.staging / "preview.png", "Image beside map")]
        facts = run_facts(run, shares)
        write_atomic(folder.staging / "run.json", to_json(facts))
        files.append(describe_file(folder.staging / "run.json", "Provenance and figures of the run"))
        write_item(folder.staging / "item.json", _item(run, files))
        paths = folder.publish()
    return Product(folder.out, paths, run.holes, shares, facts)


def _write_rasters(run: Finished, staging: Path) -> tuple[list[ProductFile], Statistics]:
    """Both COGs, and what classes were seen.

    Both at once, so that one is hashed while the other is encoded; one after the other where the raster is
    wider than a block, because each holds two rows of tiles, and memory must not grow with the raster.
    """
    legend = run.job.model.card.legend
    tags = {"model": run.job.model.card.name, "model_sha256": run.job.model.sha256, "citycover": __version__}
    classes = BandInfo(legend.product_nodata, "land cover", legend=legend, tags=tags)
    confidence = BandInfo(0, "confidence", scale=1 / 255, tags=tags)
    workers = 2 if run.plan.shape[1] <= MAX_BLOCK_WIDTH else 1
    with ThreadPoolExecutor(workers, thread_name_prefix="publish") as pool:
        first = pool.submit(_write_raster, run, staging / "landcover.tif", "classes", classes)
        second = pool.submit(_write_raster, run, staging / "confidence.tif", "confidence", confidence)
        seen, quantity = first.result(), second.result()
    names = describe_file(staging / "landcover.tif.aux.xml", "Names of the classes")
    files = [
        describe_cog(staging / "landcover.tif", classes, seen),
        names,
        describe_cog(staging / "confidence.tif", confidence, quantity),
    ]
    return files, seen.statistics


def _write_raster(run: Finished, path: Path, array: str, band: BandInfo) -> CogInfo:
    compress: Compression = "deflate" if run.job.request.compress == "deflate" else "zstd"
    return write_cog(
        path,
        run.store.array(array),
        run.plan.grid,
        band,
        compress=compress,
        resampling="mode" if band.legend else "average",
        threads=run.job.request.threads or 2,
    )


def _read_picture(run: Finished) -> Picture:
    """The image of what was mapped; the middle of it where it is too large to be decoded for a picture."""
    part = Window(*run.plan.origin, run.plan.y.size, run.plan.x.size)
    return read_picture(run.job.scene, part, _PREVIEW_SIDE)


def _write_preview(run: Finished, staging: Path, picture: Picture, counts: Mapping[int, int]) -> None:
    """The image beside the map."""
    plan, scene = run.plan, run.job.scene
    part = Window(*plan.origin, plan.y.size, plan.x.size)
    shown = picture.part.shift(-plan.origin[0], -plan.origin[1])
    scale = float(plan.scale)
    window = rasterio.windows.Window(*(v * scale for v in (shown.col, shown.row, shown.width, shown.height)))
    with rasterio.open(staging / "landcover.tif") as dataset:
        classes = dataset.read(1, window=window, out_shape=picture.valid.shape)
    cropped = shown.pixels < part.pixels
    given = PreviewInput(
        image=picture.values,
        valid=picture.valid,
        classes=classes,
        legend=run.job.model.card.legend,
        title=Path(scene.groups[0].bands[0].path).name,
        subtitle=f"{run.job.model.card.name}{', the middle of the scene' if cropped else ''}",
        counts=None if cropped else counts,
        metres=scene.gsd * picture.part.width / picture.valid.shape[1],
    )
    write_preview(staging / "preview.png", given)


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


def _item(run: Finished, files: list[ProductFile]) -> ItemContent:
    card = run.job.model.card
    scene = run.job.scene
    name = Path(scene.groups[0].bands[0].path).stem
    return ItemContent(
        id=f"{name}-{card.name}",
        grid=run.plan.grid,
        gsd=scene.gsd / float(run.plan.scale),
        created=datetime.now(UTC),
        scene_time=scene.time,
        inputs=tuple(path for path, _, _ in scene.fingerprints),
        model=ModelSource(card.name, card.version, str(run.job.model.path), run.job.model.sha256),
        files=tuple(files),
        software=versions(),
        lineage=f"{card.name} {card.version} over windows of {run.plan.y.window} x {run.plan.x.window} px",
    )
