"""A tidier map: classes merged, speckle voted down, small patches gone, trusted vectors burnt in.

The steps come in this order, each on what the one before it left, so that what is trusted has the last word.
The product that it is made from stays as it is; the new one says in its run.json what was done to it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.classes.legend import Legend, read_legend
from citycover.classes.raster import Progress
from citycover.classes.table import NO_CLASS, ClassTable, table_between
from citycover.derive.burn import Burn, rank_burnt, read_burn
from citycover.derive.canvas import canvas
from citycover.derive.majority import majority
from citycover.derive.sieve import sieved_strips
from citycover.derive.source import SourceMap, Strip, on_legend, open_source
from citycover.errors import ConfigError, ProductError
from citycover.files.atomic import write_atomic
from citycover.files.cache import cache_folder
from citycover.files.failures import machine_errors
from citycover.files.remote import Place, RemotePath, place_of
from citycover.geometry.grid import ground_sample_distance
from citycover.plan.layers import CLASSES, CONFIDENCE
from citycover.product.folder import claim_folder, publish_files
from citycover.product.product import Product
from citycover.product.rasters import Rasters, model_tags
from citycover.product.record import RunRecord
from citycover.product.stac import ItemContent, ProductFile, describe_file, write_item
from citycover.product.tiles import ArraySource
from citycover.product.upload import RemoteFolder, upload
from citycover.scene.trust import Trust
from citycover.store.work import WorkFolder
from citycover.version import __version__


@dataclass(frozen=True, slots=True)
class Steps:
    """What is to be done; at least one thing.

    Raises:
        ConfigError: nothing, or a number that makes no sense.
    """

    to: str | None = None
    """Legend whose table merges the map's classes: name, or file."""
    majority: int | None = None
    """Side in pixels of the square that votes; odd."""
    min_area: float = 0.0
    """Square metres of the smallest patch."""
    burn: tuple[tuple[Path, str], ...] = ()
    """Files of polygons and the class that they are, later ones over earlier ones."""

    def __post_init__(self) -> None:
        if not (self.to or self.majority or self.min_area or self.burn):
            raise ConfigError("nothing is to be done; give --to, --majority, --min-area or --burn")
        if self.majority is not None and (self.majority < 3 or self.majority % 2 == 0 or self.majority > 99):
            raise ConfigError(f"--majority takes an odd number of pixels from 3 to 99, got {self.majority}")
        if not (math.isfinite(self.min_area) and self.min_area >= 0):
            raise ConfigError(f"--min-area takes a number that is not negative, got {self.min_area}")

    def facts(self) -> dict[str, Any]:
        """Those that are done, as plain values in their order."""
        facts: dict[str, Any] = {
            "to": self.to,
            "majority": self.majority,
            "min_area_m2": self.min_area,
            "burn": [{"file": str(path), "class": name} for path, name in self.burn],
        }
        return {name: value for name, value in facts.items() if value}


@dataclass(frozen=True, slots=True)
class Refined:
    """What was written."""

    folder: Place
    pixels: int
    """That have a class."""
    changed: int
    """Of these, how many have another one than before, merging aside."""


def refine(
    product: str | Place,
    out: str | Place,
    steps: Steps,
    *,
    overwrite: bool = False,
    trust: Trust = Trust(),  # noqa: B008 - a value
    progress: Progress | None = None,
) -> Refined:
    """Write a tidier product beside the one that it is made from.

    Nodata stays nodata. Confidence stays that of the network's best class, 1 where vectors were burnt in.

    Args:
        product: folder on this machine, or `s3://bucket/prefix`.
        out: likewise.
        steps: what is done.
        overwrite: replace a finished product in `out`.
        trust: which files the map's own may name in turn.
        progress: is told the share that is done.

    Raises:
        ConfigError: no product, or a step that cannot be done.
        ProductError: `out` holds something else.
        MachineError: it cannot be written.
    """
    source, out = open_source(product, None, trust), place_of(out)
    if source.record is None:
        raise ConfigError(f"{product} is no product folder, which refine needs; give one that `map` wrote")
    if _lies_in(out, source.path.parent):
        raise ConfigError(
            f"{out} lies in the product itself, which is never changed; choose another --output"
        )
    if isinstance(out, RemotePath):
        return _refine_to_store(source, out, steps, overwrite, progress)
    return _refine_into(source, out, steps, overwrite, progress)


def check_steps(steps: Steps, mapped: Legend | None) -> None:
    """Refuse steps that can be done with no map.

    Args:
        steps: what is to be done.
        mapped: legend of the maps; None: not known.

    Raises:
        ConfigError: a file is not there, or a legend has not the classes.
    """
    legend = read_legend(steps.to) if steps.to else mapped
    if legend is not None:
        legend.check_product()
    if legend is not None and mapped is not None:
        ClassTable.onto(legend, table_between(mapped, legend))
    for path, name in steps.burn:
        if not path.is_file():
            raise ConfigError(f"--burn {path} does not exist; check the path")
        if legend is not None:
            rank_burnt(path, name, legend)


def _lies_in(out: Place, product: Place) -> bool:
    if isinstance(out, RemotePath) or isinstance(product, RemotePath):
        return f"{out}/".startswith(f"{product}/")
    return out.resolve().is_relative_to(product.resolve())


def _refine_to_store(
    source: SourceMap, out: RemotePath, steps: Steps, overwrite: bool, progress: Progress | None
) -> Refined:
    """Made on this machine, then put there: see `upload`."""
    if RemoteFolder.look(out).finished and not overwrite:
        raise ProductError(
            f"{out} holds a finished product; give --overwrite to replace it, or choose another --output"
        )
    cache_folder().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache_folder(), prefix="refine-") as here:
        found = _refine_into(source, Path(here) / out.name, steps, False, progress)
        upload(Product.read(found.folder), RemoteFolder.look(out), Path(here) / "uploaded.jsonl", Event())
    return replace(found, folder=out)


def _refine_into(
    source: SourceMap, out: Path, steps: Steps, overwrite: bool, progress: Progress | None
) -> Refined:
    legend = read_legend(steps.to) if steps.to else source.legend
    legend.check_product()
    burns = [read_burn(path, name, legend, source.grid) for path, name in steps.burn]
    with machine_errors(out), claim_folder(out, overwrite=overwrite) as work:
        if work.resumable:
            raise ProductError(
                f"{out} holds an unfinished run of `map`; finish it, or choose another --output"
            )
        with (
            canvas(work.staging.parent, source.grid, np.uint8) as classes,
            canvas(work.staging.parent, source.grid, np.uint8) as confidence,
        ):
            counts = _fill(classes, confidence, _steps(source, legend, steps, burns, progress), legend)
            _write(work, source, legend, steps, (classes, confidence), counts)
        publish_files(work)
    return Refined(out, int(counts[:-1].sum()), int(counts[-1]))


def _steps(
    source: SourceMap, legend: Legend, steps: Steps, burns: list[Burn], progress: Progress | None
) -> Iterator[tuple[Strip, NDArray[np.bool_]]]:
    """The new map strip by strip, and where it is another one than the merged old one."""
    table = ClassTable.onto(legend, table_between(source.legend, legend))
    halo = 0 if steps.majority is None else steps.majority // 2

    def voted(confidence: bool = True) -> Generator[Strip]:
        with source.opened(table=table, confidence=confidence) as opened:
            for window in opened.classes.strips():
                whole = opened.classes.whole
                seen = replace(window, row=window.row - halo, height=window.height + 2 * halo).clip(whole)
                assert seen is not None, "it holds the window"
                strip = opened.read(seen)
                inner = slice(window.row - seen.row, window.row_end - seen.row)
                ranks = majority(strip.ranks, steps.majority) if steps.majority else strip.ranks
                sure = None if strip.confidence is None else strip.confidence[inner]
                yield Strip(window, ranks[inner], sure)

    strips: Generator[Strip] = voted()
    if steps.min_area:
        least = math.ceil(steps.min_area / source.unit - 1e-6)
        strips = sieved_strips(voted, source.row_units, source.sides, least)
    with source.opened(table=table, confidence=False) as before, closing(strips):
        for strip in strips:
            ranks, sure = strip.ranks.copy(), strip.confidence
            for burn in burns:
                inside = burn.covered(strip.window) & (ranks != NO_CLASS)
                ranks[inside] = burn.rank
                sure = sure if sure is None else np.where(inside, 255, sure).astype(np.uint8)
            yield Strip(strip.window, ranks, sure), ranks != before.read(strip.window).ranks
            if progress is not None:
                progress(strip.window.row_end / int(source.grid.shape[0]))


def _fill(
    classes: NDArray[np.uint8],
    confidence: NDArray[np.uint8],
    strips: Iterator[tuple[Strip, NDArray[np.bool_]]],
    legend: Legend,
) -> NDArray[np.int64]:
    """Put the map on canvases; (class + 1,) pixels of each class, and last how many changed."""
    counts = np.zeros(len(legend.ids) + 1, np.int64)
    for strip, changed in strips:
        classes[strip.window.slices] = on_legend(strip.ranks, legend)
        if strip.confidence is not None:
            confidence[strip.window.slices] = np.where(strip.ranks == NO_CLASS, 0, strip.confidence)
        counts[:-1] += np.bincount((strip.ranks + 1).ravel(), minlength=len(counts))[1:]
        counts[-1] += np.count_nonzero(changed)
    return counts


def _write(
    work: WorkFolder,
    source: SourceMap,
    legend: Legend,
    steps: Steps,
    pixels: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    counts: NDArray[np.int64],
) -> None:
    """Every file of the product, to be published."""
    assert source.record is not None, "the caller looked"
    model = source.record.given.model
    tags = model_tags(model.name, model.sha256, source.record.evidence)
    rasters = Rasters(work.staging, source.grid, legend, {**tags, "refined_from": str(source.path.parent)})
    files: list[ProductFile] = []
    for layer, values in zip((CLASSES, CONFIDENCE), pixels, strict=True):
        files += rasters.write(layer, [ArraySource(values)], (layer.title,))
    record = _record(source.record, source, legend, steps, counts)
    write_atomic(work.staging / "run.json", record.to_json())
    files.append(describe_file(work.staging / "run.json", "Provenance and figures of the run"))
    write_item(work.staging / "item.json", _item(record, source, steps, files, work.out.name))


def _record(
    record: RunRecord, source: SourceMap, legend: Legend, steps: Steps, counts: NDArray[np.int64]
) -> RunRecord:
    """What run.json says: the run, and what was done to its map since."""
    total = max(1, int(counts[:-1].sum()))
    done = {
        "from": str(source.path.parent),
        "steps": steps.facts(),
        "changed_pixels": int(counts[-1]),
        "legend": legend.model_dump(mode="json"),
        "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "citycover": __version__,
    }
    shares = {n: int(c) / total for n, c in zip(legend.names, counts[:-1].tolist(), strict=True) if c}
    # No run of `map` gives these pixels, so none may take the folder for its own finished product.
    given = replace(record.given, identity={})
    return replace(record, given=given, shares=shares, refined=(*record.refined, done))


def _item(
    record: RunRecord, source: SourceMap, steps: Steps, files: list[ProductFile], name: str
) -> ItemContent:
    given = record.given
    return ItemContent.of(
        record,
        name=f"{name}-{given.model.name}",
        grid=source.grid,
        gsd=ground_sample_distance(source.grid),
        inputs=tuple(file.path for file in given.inputs),
        model=named if isinstance(named := given.request.get("model"), str) else given.model.name,
        files=tuple(files),
        lineage=f"{given.model.name} {given.model.version}, {record.evidence}; refined from "
        f"{source.path.parent} by {', '.join(steps.facts())}",
    )
