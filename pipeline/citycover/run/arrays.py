"""The xarray face: a lazy map of a lazy array, and a product folder as a dataset.

A map is one dask task a block. Each task reads what its windows look at, border included, and sweeps: the
same windows, weights and batches as `citycover map`, hence the same pixels.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from numpy.typing import NDArray

from citycover.compute.belief import believe
from citycover.compute.choices import settle
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.errors import ConfigError
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.open import open_field
from citycover.evidence.request import LabelRequest
from citycover.job.job import Job, warn_of_random_weights
from citycover.job.labels import look_at_labels
from citycover.job.request import EngineOptions
from citycover.machine.device import choose_device
from citycover.model.card import ModelCard
from citycover.model.joint import MapModel, check_map_model, read_map_model
from citycover.model.loading import load_predictor
from citycover.plan.layers import Layer, layers_of
from citycover.plan.plan import Block, Plan
from citycover.product.dataset import as_dataset
from citycover.run.array_image import ArrayImage, ArrayReader, other_scale, scene_of, understand_image
from citycover.scene.trust import Trust

_LOCK = threading.Lock()
"""One sweep at a time in a process: a network has all cores to itself, as in `map`."""

logger = logging.getLogger(__name__)


def predict_array(
    image: xr.DataArray,
    model: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[str] | None = None,
    nodata: float | None = None,
    engine: EngineOptions | None = None,
    labels: LabelRequest | None = None,
    require_hash: str | None = None,
    layers: Sequence[str] = (),
    tta: str = "none",
    trust: Trust = Trust(),  # noqa: B008 - a value
) -> xr.Dataset:
    """Map an image lazily.

    Args:
        image: (band, y, x) raw digital numbers with a CRS and transform as rioxarray keeps them, in memory or
            on dask. Bands are named by its `band` coordinate or its `long_name`, else as in the file that it
            was opened from; a band that this file calls opacity says where pixels are valid, and numbers mean
            what it, or `scale_factor` and `add_offset`, say.
        model: built-in name or model file, with one group of bands; several are averaged, as for `map`.
        bands: name or number (from 1) of the band for each band of the model; None: by name.
        nodata: digital number of invalid pixels; None: the image's own `rio.nodata`. NaN is always invalid.
        engine: as for `map`, with two differences, because nothing is computed here: where no window is asked
            for it is the card's (`map` may take a longer one for a very large scene; run.json of its product
            says which), and form and precision auto are torch and fp32. Blocks become dask chunks, 2048 x
            2048 unless asked for.
        labels: of the place, as evidence beside the network. How far they are believed is measured here, on a
            few blocks of the image, unless their trust is given or the model knows the place.
        require_hash: sha256 that the model file must have, or its first 8 digits or more; None: any.
        layers: names of further layers: probabilities, entropy, second, margin, disagreement.
        tta: none, flips or d4: windows are turned, mapped once more, and averaged.
        trust: which files label files may name in turn.

    Returns:
        `classes`, `confidence` and what was asked for beside them, ([class,] y, x) uint8 on dask, on the
        model's output grid, with CF flags, `_FillValue` and `spatial_ref`.

    Raises:
        SceneError: bands, grid or type do not fit the model.
        PlanError: the windows asked for do not fit the model.
        ConfigError: workers, a scheduler or an unknown layer are asked for, or labels cannot be evidence.
        ModelError: the model does not know what labels need, or is not the one that is required.

    Examples:
        >>> import citycover, rioxarray
        >>> image = xr.DataArray(
        ...     np.random.default_rng(0).integers(1, 255, (3, 64, 64), np.uint8),
        ...     dims=("band", "y", "x"),
        ...     coords={"band": ["red", "green", "blue"], "y": -np.arange(64.0), "x": 5e5 + np.arange(64.0)},
        ... ).rio.write_crs("EPSG:32633")
        >>> maps = citycover.predict_array(image, "spectral-rgb", layers=("entropy",))
        >>> sorted(maps), maps.classes.shape, maps.classes.dtype  # nothing is computed yet
        (['classes', 'confidence', 'entropy'], (64, 64), dtype('uint8'))
        >>> int((maps.classes != maps.classes.attrs["_FillValue"]).sum())
        4096
    """
    file = read_map_model(model, tta)
    check_map_model(file, require_hash)
    warn_of_random_weights(file.card)
    source = understand_image(image, file.card, bands, nodata)
    if odd := other_scale(source, file.card):
        logger.warning(odd)
    engine = _for_blocks(engine or EngineOptions(), file.card)
    change = labels is not None and labels.change
    made = layers_of(file.card.task, layers, change, several=not file.alone)
    job = Job(file, scene_of(source, file.card), None, engine, layers=made)
    with _LOCK:
        predictor = load_predictor(file, choose_device(engine.device))
        plan = settle(job, predictor).plan
    evidence = None
    if labels is not None:
        understood = look_at_labels(labels, file.card, plan.grid, trust)
        given = SweepInput(plan, predictor.at(plan.precision, plan.form), lambda: [ArrayReader(source)])
        with _LOCK:
            evidence = understood.believed(believe(understood, given))
    of_block = _BlockTask(file, engine.device, plan, source, evidence, job.layers)
    of = _planes(job.layers, file.card)
    every = _all_blocks(delayed(of_block, pure=False), plan, sum(map(len, of.values())))
    maps = {
        layer.name: every[of[layer.name].start :][: len(of[layer.name])] if layer.per_class
        else every[of[layer.name].start]
        for layer in job.layers
    }  # fmt: skip
    return as_dataset(maps, plan.grid, file.card.legend, file.card.channels)


def _planes(layers: Sequence[Layer], card: ModelCard) -> dict[str, range]:
    """Which planes of a block are those of a layer, by name."""
    counts = [layer.bands(len(card.channels)) or 1 for layer in layers]
    ends = list(itertools.accumulate(counts))
    return {layer.name: range(end - n, end) for layer, n, end in zip(layers, counts, ends, strict=True)}


def _all_blocks(task: Callable[[Block], Any], plan: Plan, planes: int) -> da.Array:
    """(plane, y, x) of the whole map, a dask chunk a block."""
    rows = []
    for by in range(plan.block_counts[0]):
        row = []
        for bx in range(plan.block_counts[1]):
            block = plan.block(by, bx)
            shape = (planes, block.window.height, block.window.width)
            row.append(da.from_delayed(task(block), shape, np.uint8))
        rows.append(row)
    return da.block(rows)


def _for_blocks(asked: EngineOptions, card: ModelCard) -> EngineOptions:
    """Options that settle without a trial."""
    if asked.workers or asked.scheduler or asked.work:
        raise ConfigError(
            "an array is computed by dask's own scheduler; leave workers, scheduler and work to it"
        )
    asked.check_here()
    return replace(
        asked,
        window=asked.window or card.window.size,
        block=asked.block or (2048, 2048),
        precision="fp32" if asked.precision == "auto" else asked.precision,
        form="torchscript" if asked.form == "auto" else asked.form,
    )


@dataclass(frozen=True, slots=True)
class _BlockTask:
    """Computes one block; small, but for an image in memory, which travels with it."""

    model: MapModel
    device: str
    plan: Plan
    source: ArrayImage
    evidence: LabelEvidence | None
    layers: tuple[Layer, ...]

    def __call__(self, block: Block) -> NDArray[np.uint8]:
        """(plane, y, x) of all layers, one after the other."""
        with _LOCK:
            predictor = load_predictor(self.model, choose_device(self.device))
            given = SweepInput(
                self.plan,
                predictor.at(self.plan.precision, self.plan.form),
                lambda: [ArrayReader(self.source)],
                evidence=open_field(self.evidence, self.plan.grid, predictor.device),
                layers=self.layers,
            )
            finished = next(iter(sweep(given, [block])))
        shape = (-1, block.window.height, block.window.width)
        return np.concatenate([finished.layers[layer.name].reshape(shape) for layer in self.layers])
