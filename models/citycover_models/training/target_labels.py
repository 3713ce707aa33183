"""Pseudo-labels of whole targets: the pipeline's engine predicts them block by block, and all is on disk.

    target ──▶ sweep of the engine ──▶ scores of each class, 16 bits ──▶ thresholds ──▶ labels
                                       a GeoTIFF beside each target      of all         a GeoTIFF

Scores are gone once there are labels. The folder of a round is named by the step that it begins; `round.json`
says that it is whole.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow
from torch import Tensor, nn

from citycover.classes.legend import Legend
from citycover.classes.table import NO_CLASS
from citycover.compute.choices import default_batch
from citycover.engine.blocks import run_blocks
from citycover.engine.canvas import FinishedBlock
from citycover.engine.input import SweepInput
from citycover.engine.ranking import Ranking
from citycover.errors import ConfigError
from citycover.files.atomic import make_folder, sync_tree, write_atomic
from citycover.model.card import ModelCard
from citycover.model.predictor import ModelPredictor
from citycover.plan.fit import PlanOptions, make_plan
from citycover.plan.layers import Layer
from citycover.plan.plan import Block
from citycover.read.open import open_readers
from citycover_models.data.labels import IGNORE, LabelRaster
from citycover_models.data.pairs import Pair
from citycover_models.methods.lovecs import LoveCS
from citycover_models.methods.pseudo_labels import (
    BASE,
    LEVELS,
    LOGIT_RANGE,
    ScoreCounts,
    pseudo_labels,
    score_of,
)
from citycover_models.methods.trust import Steadiness
from citycover_models.training.folder import TARGET_LABELS

logger = logging.getLogger(__name__)

_WHOLE = "round.json"

_STEADINESS = "steadiness.json"
"""By the step that a labelling precedes: it outlives the rounds, as later ones look back on it."""


def _level(ranking: Ranking) -> Tensor:
    """(class, y, x) int32; the keys of a ranking are probabilities with the class in their low bits."""
    scores = ranking.keys.view(torch.float32).clamp(0, 1)
    return (scores * (LEVELS - 1)).round().to(torch.int32)


_HIGH = Layer(
    "high", "", "first digit of the level", nodata=0, per_class=True,
    of=lambda ranking: (_level(ranking) // BASE + 1).to(torch.uint8),
)  # fmt: skip

_LOW = Layer(
    "low", "", "second digit of the level", nodata=0, per_class=True,
    of=lambda ranking: (_level(ranking) % BASE + 1).to(torch.uint8),
)  # fmt: skip


class _Squashed(nn.Module):
    """Logits as numbers from 0 to 1, which the engine takes for probabilities."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return (logits / LOGIT_RANGE + 0.5).clamp(0, 1)


@dataclass
class _ScoreFile:
    """Blocks into a GeoTIFF of levels, one band a class; 0 where there is no pixel, else the level + 1."""

    file: Any

    def finished(self, _among: Sequence[Block] | None) -> set[tuple[int, int]]:
        """Nothing: a round that was not whole is begun anew."""
        return set()

    def write(self, finished: FinishedBlock) -> None:
        """Put two digits together."""
        high, low = (finished.layers[name].astype(np.int32) for name in ("high", "low"))
        levels = np.where(high > 0, (high - 1) * BASE + low, 0).astype(np.uint16)
        window = finished.block.window
        place = RasterWindow(window.col, window.row, window.width, window.height)
        self.file.write(levels, window=place)


def label_targets(
    pairs: Sequence[Pair],
    network: nn.Module,
    card: ModelCard,
    method: LoveCS,
    folder: Path,
    *,
    device: torch.device,
    step: int,
    stop: threading.Event,
) -> None:
    """Label every target by the network as it is.

    Args:
        pairs: the targets.
        network: raw windows in, scores out, as the card says, which are what `method.score` says.
        card: with the classes that are learned.
        method: says what is believed.
        folder: of the training; labels of earlier rounds are removed.
        device: where the network is.
        step: that follows.
        stop: ends it, when it is set.

    Raises:
        ConfigError: a target has nothing to predict.
        StoppedError: `stop` was set; the round is begun anew the next time.
    """
    round_folder = folder / TARGET_LABELS / f"{step:08d}"
    for earlier in (folder / TARGET_LABELS).glob("[0-9]*"):
        shutil.rmtree(earlier)
    make_folder(round_folder)
    if method.score == "logit":
        network, card = _Squashed(network), card.model_copy(update={"activation": "probabilities"})
    predictor = ModelPredictor(card, device, network.eval())
    counts = ScoreCounts.empty(len(card.channels))
    for number, pair in enumerate(pairs):
        _predict(pair, predictor, round_folder / f"scores-{number:06d}.tif", stop)
        for levels, valid, _ in _strips(round_folder / f"scores-{number:06d}.tif"):
            counts.add(levels, valid)
    thresholds = counts.thresholds(method.portion, method.score)
    believed = np.zeros(len(thresholds), np.int64)
    for number in range(len(pairs)):
        scores = round_folder / f"scores-{number:06d}.tif"
        believed += _write_labels(
            scores,
            _labels_file(round_folder, number),
            lambda levels: pseudo_labels(score_of(levels, method.score), thresholds),
            len(thresholds),
        )
        scores.unlink()
    facts = {
        "step": step,
        "thresholds": [round(tau, 6) if math.isfinite(tau) else None for tau in thresholds.tolist()],
        "predicted": counts.passed.tolist(),
        "labelled": believed.tolist(),
    }
    logger.info("target labelled before step %d: %s", step, facts)
    sync_tree(round_folder)
    write_atomic(round_folder / _WHOLE, json.dumps(facts, indent=1))


def labelled_targets(pairs: Sequence[Pair], legend: Legend, folder: Path, step: int) -> tuple[Pair, ...]:
    """The targets with the labels of the round that began at a step.

    Raises:
        ConfigError: they are gone.
    """
    round_folder = folder / TARGET_LABELS / f"{step:08d}"
    if not (round_folder / _WHOLE).is_file():
        raise ConfigError(
            f"{round_folder} holds no whole round of labels of the target, which step {step} had made; start "
            "again with --overwrite"
        )
    ranks = (*((rank, rank) for rank in range(len(legend.ids))), (IGNORE, int(NO_CLASS)))
    title = f"legend {legend.name!r}"
    return tuple(
        Pair(pair.scene, (LabelRaster(str(_labels_file(round_folder, n)), legend.name, ranks, title),))
        for n, pair in enumerate(pairs)
    )


def keep_steadiness(folder: Path, step: int, found: Steadiness) -> None:
    """Note what was found of the target before a step, beside what was found before earlier ones."""
    kept = {number: own for number, own in _steadiness(folder).items() if number < step} | {step: found}
    make_folder(folder / TARGET_LABELS)
    listed = {number: list(own.items()) for number, own in kept.items()}
    write_atomic(folder / TARGET_LABELS / _STEADINESS, json.dumps(listed))


def steadiness_before(folder: Path, step: int) -> list[Steadiness]:
    """What was found of the target before each labelling that is earlier than a step."""
    return [own for number, own in sorted(_steadiness(folder).items()) if number < step]


def _steadiness(folder: Path) -> dict[int, Steadiness]:
    path = folder / TARGET_LABELS / _STEADINESS
    kept = json.loads(path.read_text()) if path.is_file() else {}
    return {int(number): dict(own) for number, own in kept.items()}


def _labels_file(round_folder: Path, number: int) -> Path:
    return round_folder / f"labels-{number:06d}.tif"


def _predict(pair: Pair, predictor: ModelPredictor, path: Path, stop: threading.Event) -> None:
    """Scores of one target."""
    plan = make_plan(pair.scene, predictor.card, PlanOptions(), batch=1, precision="fp32")
    plan = replace(plan, batch=default_batch(plan, predictor.device))
    given = SweepInput(plan, predictor, open_readers(pair.scene, None), stop=stop, layers=(_HIGH, _LOW))
    bands = len(predictor.card.channels)
    with _raster(path, pair, plan.shape, count=bands, dtype="uint16", nodata=0) as file:
        run_blocks(given, _ScoreFile(file), lambda _block: None)


def _strips(path: Path) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_], RasterWindow]]:
    """(class, y, x) levels and (y, x) where there are any, the full width at a time, from top to bottom."""
    with rasterio.open(path) as file:
        for row in range(0, file.height, _TILE):
            window = RasterWindow(0, row, file.width, min(_TILE, file.height - row))
            stored = file.read(window=window).astype(np.int32)
            yield np.maximum(stored - 1, 0), stored[0] > 0, window


def _write_labels(
    scores: Path, path: Path, labels_of: Callable[[NDArray[np.int32]], NDArray[np.uint8]], classes: int
) -> NDArray[np.int64]:
    """Labels of one target; returns (class,) pixels."""
    total = np.zeros(classes, np.int64)
    with rasterio.open(scores) as like:
        profile = dict(like.profile, count=1, dtype="uint8", nodata=IGNORE)
    with rasterio.open(path, "w", **profile) as file:
        for levels, valid, window in _strips(scores):
            labels = np.where(valid, labels_of(levels), IGNORE).astype(np.uint8)
            total += np.bincount(labels[labels != IGNORE], minlength=classes)
            file.write(labels, 1, window=window)
    return total


_TILE = 256


def _raster(path: Path, pair: Pair, shape: tuple[int, int], **profile: Any) -> Any:
    """A tiled GeoTIFF on a target's grid."""
    grid = pair.scene.grid
    return rasterio.open(
        path, "w", driver="GTiff", height=shape[0], width=shape[1], crs=str(grid.crs),
        transform=grid.transform, tiled=True, blockxsize=_TILE, blockysize=_TILE,
        compress="zstd", bigtiff="if_safer", **profile,
    )  # fmt: skip
