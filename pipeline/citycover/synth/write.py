"""Writes a city to disk, plate by plate: memory does not depend on its size, but for a few rows of labels."""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from citycover.classes.legend import Legend, read_legend
from citycover.errors import ConfigError, MachineError, ProductError
from citycover.files.atomic import put_in_place
from citycover.geometry.window import Window
from citycover.synth.city import city_window
from citycover.synth.labels import LabelMaker
from citycover.synth.parameters import CITY, SYNTH_VERSION
from citycover.synth.sensors import S2_GSD, S2_OFFSET, S2_QUANTIFICATION, second_window, sentinel2_window

T = TypeVar("T")

log = logging.getLogger(__name__)

CRS = "EPSG:32633"

FILES = {"image.tif": 1, "truth.tif": 1, "labels_10m.tif": 10, "labels_30m.tif": 30}
"""What every city has, by name, and the metres along a pixel's side."""

ORIGIN = (392_000.0, 5_820_000.0)
"""Easting and northing of the upper left corner, metres; a multiple of every pixel size."""

MAX_SIZE = 500_000
"""Pixels along one side: beyond it coordinates lose centimetres in float32."""

_PLATE = 512

_S2_PLATE = 600

_LABEL_ROWS = 64

_S2_NAME = "T33UUU_20240615T101031_{band}_{gsd}m.tif"


@dataclass(frozen=True, slots=True)
class SynthResult:
    """What was written, and how fast."""

    folder: Path
    files: tuple[Path, ...]
    """In the order written; image, truth and labels first."""
    shape: tuple[int, int]
    """(y, x) of the image."""
    seconds: float
    shares: dict[str, float]
    """Share of each class of the truth by name, 0..1."""

    @property
    def mpx_per_s(self) -> float:
        """Millions of image pixels per second, everything included."""
        return self.shape[0] * self.shape[1] / 1e6 / max(self.seconds, 1e-9)


@dataclass(slots=True)
class _Progress:
    """Counts plates of all passes and reports the share done."""

    total: int
    report: Callable[[float], None] | None
    done: int = field(default=0)

    def step(self) -> None:
        self.done += 1
        if self.report is not None:
            self.report(self.done / self.total)


def write_city(
    folder: Path,
    size: int | tuple[int, int],
    seed: int = 0,
    *,
    sentinel2: bool = False,
    second_sensor: bool = False,
    progress: Callable[[float], None] | None = None,
    threads: int = 2,
    overwrite: bool = False,
) -> SynthResult:
    """Write the city of one seed: `image.tif`, `truth.tif`, `labels_10m.tif`, `labels_30m.tif`.

    The files appear under their names when all are complete. A smaller city is the upper left corner of a
    larger one of the same seed (but for labels at its right and lower border).

    Args:
        folder: made if it is missing.
        size: pixels of 1 m along both sides, or (y, x).
        seed: 0 or more; another seed is another city.
        sentinel2: also write twelve bands at 10, 20 and 60 m into `sentinel2/`.
        second_sensor: also write `sensor_b/image.tif`, seen by another camera at 1.25 m.
        progress: called with the share done, 0..1.
        threads: that draw; one more compresses and writes.
        overwrite: replace a city that is already there.

    Raises:
        ConfigError: size, seed or threads make no sense.
        ProductError: there is a city in the folder, and `overwrite` is False.
        MachineError: the folder cannot be written.
    """
    shape = _check(size, seed, threads)
    names = [*FILES]
    names += [f"sentinel2/{_S2_NAME.format(band=b, gsd=g)}" for b, g in S2_GSD.items()] if sentinel2 else []
    names += ["sensor_b/image.tif"] if second_sensor else []
    _refuse_to_replace(folder, names, overwrite)
    started = time.perf_counter()
    b_shape = (-(-shape[0] * 4 // 5), -(-shape[1] * 4 // 5))
    plates = (
        _count(shape, _PLATE) + sentinel2 * _count(shape, _S2_PLATE) + second_sensor * _count(b_shape, _PLATE)
    )
    counter = _Progress(plates, progress)
    partial = folder / ".partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
        with rasterio.Env(GDAL_CACHEMAX=64), ThreadPoolExecutor(threads) as pool:
            counts = _write_city_files(partial, shape, seed, pool, threads, counter)
            if sentinel2:
                _write_sentinel2(partial, shape, seed, pool, threads, counter)
            if second_sensor:
                _write_second(partial, b_shape, seed, pool, threads, counter)
        _publish(partial, folder, names)
    except (OSError, RasterioIOError) as error:
        raise MachineError(
            f"cannot write the city to {folder}: {error}; free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    legend = read_legend("city")
    shares = {c.name: float(counts[c.id] / counts.sum()) for c in legend.classes}
    files = tuple(folder / name for name in names)
    result = SynthResult(folder, files, shape, time.perf_counter() - started, shares)
    log.info(
        "city %d of %d x %d px written in %.1f s, %.2f Mpx/s", seed, *shape, result.seconds, result.mpx_per_s
    )
    return result


def tags_of(seed: int) -> dict[str, str]:
    """Tags of every file of a city."""
    return {"CITYCOVER_SYNTH_VERSION": str(SYNTH_VERSION), "CITYCOVER_SYNTH_SEED": str(seed)}


def _check(size: int | tuple[int, int], seed: int, threads: int) -> tuple[int, int]:
    shape = (size, size) if isinstance(size, int) else (size[0], size[1])
    if not all(1 <= s <= MAX_SIZE for s in shape):
        raise ConfigError(
            f"size {shape[0]} x {shape[1]} is not possible; give 1 to {MAX_SIZE} pixels along each side"
        )
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative; give 0 or more")
    if threads < 1:
        raise ConfigError(f"{threads} threads cannot draw; give 1 or more")
    return shape


def _refuse_to_replace(folder: Path, names: list[str], overwrite: bool) -> None:
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise ProductError(
            f"{folder} already holds {', '.join(there[:4])}; choose another folder or allow overwriting"
        )


def _publish(partial: Path, folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put_in_place(partial / name, folder / name)


def _plates(shape: tuple[int, int], size: int, step: int = 1) -> Iterator[Window]:
    """Row by row from the top; sides are multiples of `step`, so the last may reach beyond the raster."""
    for row in range(0, shape[0], size):
        for col in range(0, shape[1], size):
            left = (-(-(shape[0] - row) // step) * step, -(-(shape[1] - col) // step) * step)
            yield Window(row, col, min(size, left[0]), min(size, left[1]))


def _count(shape: tuple[int, int], size: int) -> int:
    return -(-shape[0] // size) * -(-shape[1] // size)


def _draw(
    pool: ThreadPoolExecutor,
    threads: int,
    draw: Callable[[int, Window], T],
    seed: int,
    windows: Iterable[Window],
) -> Iterator[tuple[Window, T]]:
    """Draw windows in parallel and yield them in order, a few ahead of the writer at most."""
    ahead: deque[tuple[Window, Future[T]]] = deque()
    try:
        for window in windows:
            ahead.append((window, pool.submit(draw, seed, window)))
            if len(ahead) > threads + 1:
                done, future = ahead.popleft()
                yield done, future.result()
        while ahead:
            done, future = ahead.popleft()
            yield done, future.result()
    finally:
        for _, future in ahead:
            future.cancel()


def _open(path: Path, shape: tuple[int, int], gsd: float, seed: int, **profile: Any) -> Any:
    """Open a GeoTIFF for writing."""
    tiles = {"tiled": True, "blockxsize": _PLATE, "blockysize": _PLATE}
    dataset = rasterio.open(
        path, "w", driver="GTiff", height=shape[0], width=shape[1], crs=CRS,
        transform=Affine(gsd, 0, ORIGIN[0], 0, -gsd, ORIGIN[1]),
        compress="zstd", zstd_level=1, bigtiff="if_safer", **tiles, **profile,
    )  # fmt: skip
    dataset.update_tags(**tags_of(seed))
    return dataset


def _open_rgbn(path: Path, shape: tuple[int, int], gsd: float, seed: int) -> Any:
    dataset = _open(
        path, shape, gsd, seed, count=4, dtype="uint8", interleave="pixel", predictor=2, photometric="rgb"
    )
    dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
    for i, name in enumerate(("red", "green", "blue", "nir"), start=1):
        dataset.set_band_description(i, name)
    return dataset


def _open_classes(path: Path, shape: tuple[int, int], gsd: float, seed: int, legend: Legend) -> Any:
    dataset = _open(path, shape, gsd, seed, count=1, dtype="uint8", nodata=legend.product_nodata)
    dataset.write_colormap(1, {0: (0, 0, 0, 0), **{c.id: (*c.rgb, 255) for c in legend.classes}})
    dataset.set_band_description(1, "land cover")
    return dataset


def _put(dataset: Any, pixels: NDArray[Any], row: int, col: int) -> None:
    """Write the part of (band, y, x) pixels that lies inside the raster."""
    height = min(pixels.shape[1], dataset.height - row)
    width = min(pixels.shape[2], dataset.width - col)
    if height > 0 and width > 0:
        dataset.write(pixels[:, :height, :width], window=RasterWindow(col, row, width, height))


def _write_city_files(
    folder: Path,
    shape: tuple[int, int],
    seed: int,
    pool: ThreadPoolExecutor,
    threads: int,
    counter: _Progress,
) -> NDArray[np.int64]:
    """Image, truth and both label rasters in one pass; returns pixels per class id."""
    legend = read_legend("city")
    maker = LabelMaker(seed, shape)
    strip = np.empty((min(_PLATE, shape[0]), shape[1]), np.uint8)
    counts = np.zeros(256, np.int64)
    with ExitStack() as stack:
        image = stack.enter_context(_open_rgbn(folder / "image.tif", shape, 1, seed))
        truth = stack.enter_context(_open_classes(folder / "truth.tif", shape, 1, seed, legend))
        tens, thirties = (
            stack.enter_context(
                _open_classes(
                    folder / f"labels_{g}m.tif", (-(-shape[0] // g), -(-shape[1] // g)), g, seed, legend
                )
            )
            for g in (10, 30)
        )
        for window, (pixels, cover) in _draw(pool, threads, city_window, seed, _plates(shape, _PLATE)):
            _put(image, pixels, window.row, window.col)
            _put(truth, cover[None], window.row, window.col)
            part = strip[: window.height, window.col : window.col_end]
            part[...] = cover
            counts += np.bincount(cover.ravel(), minlength=256)
            if window.col_end == shape[1]:
                # In thin slices: what the label maker holds of a wide city is what bounds memory.
                for top in range(0, window.height, _LABEL_ROWS):
                    rows = strip[top : min(top + _LABEL_ROWS, window.height)]
                    for i, ten, thirty in maker.add(rows.copy()):
                        _put(tens, ten[None], i * 3, 0)
                        _put(thirties, thirty[None], i, 0)
            counter.step()
    return counts


def _write_sentinel2(
    folder: Path,
    shape: tuple[int, int],
    seed: int,
    pool: ThreadPoolExecutor,
    threads: int,
    counter: _Progress,
) -> None:
    with ExitStack() as stack:
        bands = {}
        for band, gsd in S2_GSD.items():
            path = folder / "sentinel2" / _S2_NAME.format(band=band, gsd=gsd)
            coarse = (-(-shape[0] // gsd), -(-shape[1] // gsd))
            dataset = stack.enter_context(
                _open(path, coarse, gsd, seed, count=1, dtype="uint16", predictor=2, nodata=0)
            )
            dataset.set_band_description(1, band)
            dataset.scales, dataset.offsets = (1 / S2_QUANTIFICATION,), (-S2_OFFSET / S2_QUANTIFICATION,)
            bands[band] = dataset
        for window, planes in _draw(pool, threads, sentinel2_window, seed, _plates(shape, _S2_PLATE, 60)):
            for band, plane in planes.items():
                _put(bands[band], plane[None], window.row // S2_GSD[band], window.col // S2_GSD[band])
            counter.step()


def _write_second(
    folder: Path,
    shape: tuple[int, int],
    seed: int,
    pool: ThreadPoolExecutor,
    threads: int,
    counter: _Progress,
) -> None:
    with _open_rgbn(folder / "sensor_b" / "image.tif", shape, CITY.second_sensor.gsd, seed) as image:
        for window, pixels in _draw(pool, threads, second_window, seed, _plates(shape, _PLATE, 4)):
            _put(image, pixels, window.row, window.col)
            counter.step()
