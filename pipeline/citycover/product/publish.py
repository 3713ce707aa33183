"""From the working store to the product folder: COGs, STAC item, run.json, preview."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from citycover.draw.preview import PreviewInput, write_preview
from citycover.files.atomic import write_atomic
from citycover.geometry.areas import mean_area
from citycover.geometry.grid import authority_code, crs_of
from citycover.machine.cores import threads_here
from citycover.plan.layers import CLASSES, CONFIDENCE, Layer, layers_named
from citycover.product.finished import Finished
from citycover.product.folder import publish_files
from citycover.product.geozarr import write_zarr
from citycover.product.holes import write_holes
from citycover.product.image import SceneImage, mapped_part
from citycover.product.names import HOLES, ZARR
from citycover.product.product import Product
from citycover.product.rasters import Rasters, model_tags
from citycover.product.record import RunRecord
from citycover.product.shown import Shown
from citycover.product.stac import ItemContent, ProductFile, describe_file, write_item
from citycover.scene.scene import Scene
from citycover.store.statistics import Statistics
from citycover.store.work import WorkFolder

logger = logging.getLogger(__name__)

_WIDE = 32_768
"""Pixels of the coarsest overview of the store; a row of its tiles takes 17 MB."""


def publish(
    run: Finished, folder: WorkFolder, image: Future[SceneImage], write_report: Callable[[Path, Shown], None]
) -> Product:
    """Write every file of the product beside the store, then rename them into the folder.

    Args:
        run: every block is in the store.
        folder: held.
        image: of the scene; read meanwhile.
        write_report: writes the page that shows the product.
    """
    folder.check_held()
    with run.stages.time("publish"), ThreadPoolExecutor(1, thread_name_prefix="page") as pool:
        files, statistics = _write_rasters(run, folder.staging)
        legend = run.job.model.card.legend
        counts = {c.id: statistics.counts.get(c.id, 0) for c in legend.classes}
        shares = {c.name: counts[c.id] / statistics.valid for c in legend.classes if counts[c.id]}
        if not statistics.valid and run.job.model.card.task == "classes" and run.job.tile is None:
            logger.warning("no pixel of the map is valid: %s", _why_empty(run))
        files += _write_zarr(run, folder.staging)
        record = run.record(shares)
        shown = _shown(run, folder.staging, image.result(), counts, record)
        page = pool.submit(write_report, folder.staging / "report.html", shown)
        _write_preview(folder.staging / "preview.png", shown)
        files.append(describe_file(folder.staging / "preview.png", "Image beside map"))
        page.result()
        files.append(describe_file(folder.staging / "report.html", "The product to look at"))
        write_atomic(folder.staging / "run.json", record.to_json())
        files.append(describe_file(folder.staging / "run.json", "Provenance and figures of the run"))
        if record.holes:
            write_holes(folder.staging / HOLES, record.holes, run.job.scene.grid)
            files.append(describe_file(folder.staging / HOLES, "Parts of the imagery that could not be read"))
        write_item(folder.staging / "item.json", _item(run, files, record))
        paths = publish_files(folder)
    return Product(folder.out, paths, record)


def _why_empty(run: Finished) -> str:
    """What may have left a map without a pixel, and is to be looked at."""
    scene = run.job.scene
    causes = ["nodata of the image"]
    if scene.masks:
        causes.append(f"what masks hide ({'; '.join(scene.masks)})")
    if run.job.area is not None:
        causes.append("an area that no pixel has its centre in")
    if any(block.holes for block in run.blocks):
        causes.append("what could not be read")
    return f"look at {', '.join(causes)}"


def _write_rasters(run: Finished, staging: Path) -> tuple[list[ProductFile], Statistics]:
    """The COG of every layer, and what classes were seen.

    Two at once, so that one is read while the other is written; one after the other where what the coarser
    overviews are made of is very wide, because each holds rows of its tiles.
    """
    model, options = run.job.model, run.request.product
    card = model.card
    rasters = Rasters(
        staging,
        run.plan.grid,
        card.legend,
        model_tags(card.name, model.sha256, run.evidence),
        "deflate" if options.compress == "deflate" else "zstd",
        run.job.engine.threads or threads_here(),
    )

    def write(layer: Layer) -> list[ProductFile]:
        names = card.channel_names if layer.per_class else (layer.title,)
        return rasters.write(
            layer, [run.store.raster(layer.name, k, run.blocks) for k in range(len(names))], names
        )

    wide = run.store.levels[-1].shape[1] > _WIDE
    with ThreadPoolExecutor(1 if wide else 2, thread_name_prefix="publish") as pool:
        written = list(pool.map(write, layers_named(run.store.arrays)))
    files = [file for one in written for file in one]
    return files, next(file for file in files if file.name == CLASSES.file).statistics[0]


def _write_zarr(run: Finished, staging: Path) -> list[ProductFile]:
    """All layers in one store, where that was asked for."""
    if "zarr" not in run.request.product.formats:
        return []
    path = staging / ZARR
    write_zarr(path, run.store, layers_named(run.store.arrays), run.plan.grid, run.job.model.card)
    return [describe_file(path, "All layers")]


def _shown(
    run: Finished,
    staging: Path,
    image: SceneImage,
    counts: Mapping[int, int],
    record: RunRecord,
) -> Shown:
    """What picture and page show: the image, and the rasters of the same place as small."""
    plan, scene = run.plan, run.job.scene
    picture = image.picture
    place = picture.part.shift(-plan.origin[0], -plan.origin[1])
    scale = float(plan.scale)
    window = rasterio.windows.Window(*(v * scale for v in (place.col, place.row, place.width, place.height)))

    def small(layer: Layer) -> NDArray[np.uint8]:
        with rasterio.open(staging / layer.file) as dataset:
            pixels: NDArray[np.uint8] = dataset.read(1, window=window, out_shape=picture.valid.shape)
        return pixels

    crs = crs_of(plan.grid)
    return Shown(
        title=run.job.tile.name if run.job.tile else _title(scene),
        record=record,
        image=image.rgb,
        valid=picture.valid,
        classes=small(CLASSES),
        confidence=small(CONFIDENCE),
        metres=scene.gsd * picture.part.width / picture.valid.shape[1],
        cropped=place.pixels < mapped_part(plan).pixels,
        counts=counts,
        pixel_area=mean_area(plan.grid),
        shape=plan.shape,
        crs=authority_code(crs) or crs.name,
    )


def _title(scene: Scene) -> str:
    """What the scene is called: its first file, and how many sheets there are besides."""
    name, more = Path(scene.groups[0].bands[0].path).name, len(scene.groups[0].sheets) - 1
    return f"{name} and {more} more" if more else name


def _write_preview(path: Path, shown: Shown) -> None:
    """The image beside the map."""
    record = shown.record
    cropped = ", the middle of the scene" if shown.cropped else ""
    given = PreviewInput(
        image=shown.image,
        valid=shown.valid,
        classes=shown.classes,
        legend=record.legend,
        title=shown.title,
        subtitle=f"{record.given.model.name}, {record.standing}, {record.evidence}{cropped}",
        counts=None if shown.cropped else shown.counts,
        metres=shown.metres,
    )
    write_preview(path, given)


def _item(run: Finished, files: list[ProductFile], record: RunRecord) -> ItemContent:
    card = run.job.model.card
    scene = run.job.scene
    tile = run.job.tile
    name = tile.name if tile else Path(scene.groups[0].bands[0].path).stem
    return ItemContent.of(
        record,
        name=f"{name}-{card.name}",
        grid=run.plan.grid,
        gsd=scene.gsd / float(run.plan.scale),
        inputs=tuple(dict.fromkeys(path for group in scene.groups for path in group.paths)),
        model=str(run.job.model.path),
        files=tuple(files),
        lineage=f"{card.name} {card.version} over windows of {run.plan.y.window} x {run.plan.x.window} px"
        f"{f' of {scene.composed}' if scene.composed else ''}, {run.evidence}",
    )
