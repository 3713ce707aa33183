"""What is made of a map: a tidier one, polygons of it, areas in zones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from citycover.derive.areas import zonal_areas
from citycover.derive.refine import refine
from citycover.derive.table import write_table
from citycover.derive.vectorize import vectorize
from citycover.errors import StoppedError
from citycover.files.remote import Place
from citycover.region.bucket import AnyRegion
from citycover.region.config import Areas, Polygons, Region
from citycover.region.made import mark_of, name_of, place_of_made, step_of, take_away
from citycover.region.record import SceneRecord

Step = tuple[str, Callable[[], object]]


def steps_after(region: Region, folder: AnyRegion, scene: str) -> Iterator[Step]:
    """What the region file asks to be made of the map of a scene, in order: its name, and what makes it.

    Polygons and areas are those of the refined map where there is one. Each replaces what was there.
    """
    product: Place = folder.map_of(scene)
    if (steps := region.refine) is not None:
        raw, product = product, folder.refined_of(scene)
        yield "refine", lambda: refine(raw, product, steps, overwrite=True)
    if (polygons := region.polygons) is not None:
        yield "polygons", lambda: _polygons(folder, product, scene, polygons)
    if (areas := region.areas) is not None:
        yield "areas", lambda: _areas(folder, product, scene, areas)


def make_lacking(
    region: Region,
    folder: AnyRegion,
    record: SceneRecord,
    wanted: Mapping[str, str],
    lacking: Collection[str],
    stop: threading.Event,
    note: Callable[[SceneRecord], None],
) -> None:
    """Make what is asked for of a map and is not there; what takes the place of something else removes that.

    Args:
        region: says how.
        folder: of the region.
        record: of the scene.
        wanted: each step with the digest of what decides it.
        lacking: those to be made.
        stop: asks to stop.
        note: keeps the record; called after each step, so that none is made twice.

    Raises:
        StoppedError: it was asked to stop.
        CitycoverError: a step cannot be done.
    """
    after, made = dict(record.after), dict(record.made)
    for step, make in steps_after(region, folder, record.name):
        if step not in lacking:
            continue
        if stop.is_set():
            raise StoppedError
        make()
        name = name_of(region, step)
        made[name] = mark_of(folder, record.name, name)
        others = [other for other in made if step_of(other) == step and other != name]
        made = take_away(folder, record.name, made, others)
        after[step] = wanted[step]
        note(replace(record, after=after, made=made))


def is_there(region: Region, folder: AnyRegion, scene: str, step: str) -> bool:
    """Whether what a step makes of the map of a scene lies where it is to be."""
    if step == "refine":
        refined = folder.refined_of(scene)
        return bool(folder.mark(refined)) and not folder.lost(refined)
    return place_of_made(folder, scene, name_of(region, step)).is_file()


def _polygons(folder: AnyRegion, product: Place, scene: str, asked: Polygons) -> None:
    with folder.new_file("polygons", scene, asked.format) as path:
        vectorize(product, path, min_area=asked.min_area, simplify=asked.simplify)


def _areas(folder: AnyRegion, product: Place, scene: str, asked: Areas) -> None:
    rows = list(zonal_areas(product, asked.zones, asked.by).rows())
    with folder.new_file("areas", scene, asked.format) as path:
        write_table(path, rows)
