"""The imagery under a map: three bands of a scene, stretched alike on every tile."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from citycover.draw.colours import between, shown_range
from citycover.errors import CitycoverError, SceneError
from citycover.files.gdal import READ_OPTIONS
from citycover.files.remote import is_remote
from citycover.geometry.positions import reach
from citycover.geometry.window import Window
from citycover.product.record import RunRecord
from citycover.read.picture import open_band, read_picture, visible_bands
from citycover.scene.assemble import describe_scene
from citycover.scene.laying import Laying
from citycover.scene.measure import Measure
from citycover.scene.scene import Scene
from citycover.scene.trust import Trust
from citycover.view.mercator import native_level
from citycover.view.paint import paint_image
from citycover.view.pixels import least_level, read_on

logger = logging.getLogger(__name__)

_SAMPLE = 400
"""Pixels along the longer side of what colours are stretched by."""


@dataclass(frozen=True)
class SceneImage:
    """A scene that can be shown."""

    scene: Scene
    least: int
    """First level of web maps at which it is shown; files without overviews are shown from near only."""

    @cached_property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """Of each band what is dark and bright; looked for when the first tile is asked for."""
        picture = read_picture(self.scene, Window(0, 0, *self.scene.shape), _SAMPLE)
        return tuple(shown_range(band, picture.valid) for band in np.moveaxis(picture.values, 2, 0))

    def tile(self, grid: GeoBox) -> bytes:
        """PNG on a grid in Mercator.

        Raises:
            RasterioError: a file cannot be read.
        """
        group = self.scene.groups[0]
        places = visible_bands(group.bands)
        height, width = grid.shape
        values, valid = np.zeros((3, height, width)), np.zeros((height, width), np.bool_)
        for sheet in group.sheets:
            at = reach(sheet.grid, grid)
            if at is None or at.clip(Window(0, 0, height, width)) is None or valid.all():
                continue
            bands = [sheet.bands[place] for place in places]
            planes: np.ma.MaskedArray[Any, Any] = np.ma.concatenate(  # type: ignore[no-untyped-call]
                [read_on(band.path, grid, [band.index], band.nodata) for band in bands]
            )
            new = ~np.ma.getmaskarray(planes).any(0) & np.isfinite(planes.data).all(0) & ~valid
            np.copyto(values, planes.data, where=new)
            valid |= new
        rgb = [between(band, *limits) for band, limits in zip(values, self.limits, strict=True)]
        return paint_image(np.stack(rgb, axis=2), valid)


def image_of_files(files: Sequence[str | Path], latitude: float, trust: Trust) -> SceneImage:
    """The scene that files hold.

    Raises:
        SceneError: they cannot be used.
    """
    return _image(describe_scene(files, None, trust=trust), latitude)


def image_of_run(record: RunRecord, latitude: float, trust: Trust) -> SceneImage | None:
    """The scene that a map was made of, where its files are still there; it has no say in what is trusted."""
    asked = record.given.request.get("imagery", {})
    try:
        scene = describe_scene(
            _found(asked.get("files", ()), record, trust),
            record.card,
            bands=asked.get("bands"),
            nodata=asked.get("nodata"),
            resample=bool(asked.get("resample")),
            laying=Laying(**asked.get("laying", {})),
            measure=Measure(**asked["measure"]) if asked.get("measure") else None,
            trust=trust,
        )
        return _image(scene, latitude)
    except CitycoverError as error:
        logger.info("the image of %s is not shown: %s", record.given.model.name, error)
        return None


def _found(files: Sequence[str], record: RunRecord, trust: Trust) -> list[str]:
    """Where files that may have been named from another folder lie: the record knows whole paths."""
    whole = {Path(one.path).name: one.path for one in reversed(record.given.inputs)}
    found = [whole.get(Path(name).name, name) for name in files]
    if not found:
        raise SceneError("its record names no file")
    if any(map(is_remote, found)) and not trust.remote:
        raise SceneError("its record names an address; nothing was fetched; if you trust it: --allow-remote")
    return found


def _image(scene: Scene, latitude: float) -> SceneImage:
    if scene.grid.crs is None:
        raise SceneError("the image has no CRS, so it cannot be laid under a map; write it into the file")
    native = native_level(scene.grid, latitude)
    least = 0
    sheet = scene.groups[0].sheets[0]
    for band in (sheet.bands[place] for place in visible_bands(sheet.bands)):
        with rasterio.Env(**READ_OPTIONS), open_band(band) as dataset:
            least = max(least, least_level(dataset, native))
    return SceneImage(scene, least)
