"""What is made of a map: a tidier one, polygons of it, areas in zones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from citycover.derive.areas import zonal_areas
from citycover.derive.refine import refine
from citycover.derive.table import write_table
from citycover.derive.vectorize import vectorize
from citycover.product.folder import holds_product
from citycover.region.config import Region
from citycover.region.folder import RegionFolder

Step = tuple[str, Callable[[], object]]


def steps_after(region: Region, folder: RegionFolder, scene: str) -> Iterator[Step]:
    """What the region file asks to be made of the map of a scene, in order: its name, and what makes it.

    Polygons and areas are those of the refined map where there is one. Each replaces what was there.
    """
    product = folder.map_of(scene)
    if (steps := region.refine) is not None:
        raw, product = product, folder.out / "refined" / scene
        yield "refine", lambda: refine(raw, product, steps, overwrite=True)
    if (polygons := region.polygons) is not None:
        yield (
            "polygons",
            lambda: vectorize(
                product,
                _beside(folder, "polygons", scene, polygons.format),
                min_area=polygons.min_area,
                simplify=polygons.simplify,
            ),
        )
    if (areas := region.areas) is not None:
        yield (
            "areas",
            lambda: write_table(
                _beside(folder, "areas", scene, areas.format),
                list(zonal_areas(product, areas.zones, areas.by).rows()),
            ),
        )


def is_there(region: Region, folder: RegionFolder, scene: str, step: str) -> bool:
    """Whether what a step makes of the map of a scene lies where it is to be."""
    if step == "refine":
        return holds_product(folder.out / "refined" / scene)
    part = region.polygons if step == "polygons" else region.areas
    return part is not None and _beside(folder, step, scene, part.format).is_file()


def _beside(folder: RegionFolder, part: str, scene: str, ending: str) -> Path:
    return folder.out / part / f"{scene}.{ending}"
