"""Cells that were kept back, judged with a network whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from training_sets import small_recipe

from citycover.evidence.labels import LabelEvidence, understand_labels
from citycover.evidence.noise import Belief, LabelNoise
from citycover.evidence.request import LabelRequest
from citycover.evidence.rule import Rule
from citycover.model.card import BandGroup, ModelCard
from citycover.model.predictor import FunctionPredictor
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.sharpen.judge import OUTPUTS, _KeptBack, judge
from citycover_models.training.coarse import plan_of
from citycover_models.training.request import TrainRequest

SIDE, CELL = 128, 10
LABELS = np.random.default_rng(1).integers(1, 7, (13, 13)).astype(np.uint8)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    """An image whose first band is the label of the cell that a pixel lies in."""
    folder = tmp_path_factory.mktemp("scene")
    shared = {"driver": "GTiff", "dtype": "uint8", "crs": "EPSG:32633"}
    corner = Affine(1, 0, 500_000, 0, -1, 5_800_000)
    fine = LABELS.repeat(CELL, 0).repeat(CELL, 1)[:SIDE, :SIDE]
    with rasterio.open(
        folder / "image.tif", "w", **shared, height=SIDE, width=SIDE, count=4, transform=corner
    ) as out:
        out.write(np.stack([fine] * 4))
        out.descriptions = ("red", "green", "blue", "nir")
    with rasterio.open(
        folder / "labels.tif",
        "w",
        **shared,
        height=13,
        width=13,
        count=1,
        transform=corner * Affine.scale(10),
    ) as out:
        out.write(LABELS, 1)
    item = ImageAndLabels(str(folder / "image.tif"), (str(folder / "labels.tif"),))
    return prepare_training_set([item], ["city"], None)


def judged(known: TrainingSet, sharp: float, validation: float = 0.25):
    """The judgement of a network that is so sure of what it sees."""
    names = ("red", "green", "blue", "nir")
    card = ModelCard(
        name="knowing", groups=(BandGroup(bands=names, dtypes=("uint8",), fill=(0.0,) * 4),),
        window={"size": 16}, trim=0, feather=0, legend="city", trained_prior=(1 / 6,) * 6,
    )  # fmt: skip
    classes = torch.arange(1, 7).view(6, 1, 1)
    predictor = FunctionPredictor(card, lambda x: sharp * (x[:, :1] == classes).float())
    pair = known.pairs[0]
    request = TrainRequest(known, small_recipe(chip=16, validation=validation), Path("unused"))
    labels = understand_labels(LabelRequest((Path(pair.labels[0].path),), "city"), card, pair.scene.grid)
    evidence: LabelEvidence = labels.believed(Belief(LabelNoise(0.0, 5000), "asked"))
    assert evidence == replace(evidence, rule=Rule(0.0))
    plan = plan_of(request, known)
    return judge(predictor, evidence, pair, plan), plan


def test_a_network_that_knows_is_right_and_labels_around_are_not(known: TrainingSet) -> None:
    judgement, plan = judged(known, sharp=60.0)
    around, alone, both = (judgement.confusions[name] for name in OUTPUTS)
    assert alone.overall_accuracy == both.overall_accuracy == 1.0
    assert around.overall_accuracy < 0.5
    assert np.nansum(judgement.gains()) > 1
    wanted = np.zeros(6, np.int64)
    for chip in plan.held_out:  # every pixel asked for its cell, one by one
        counts: dict[tuple[int, int], int] = {}
        for y in range(chip.window.row, chip.window.row_end):
            for x in range(chip.window.col, chip.window.col_end):
                cell = (y // CELL, x // CELL)
                if cell[0] % 2 == 0 and cell[1] % 2 == 0:
                    counts[cell] = counts.get(cell, 0) + 1
        for cell, count in counts.items():
            if count >= 0.5 * max(counts.values()):
                wanted[LABELS[cell] - 1] += 1
    np.testing.assert_array_equal(around.counts.sum(1), wanted)
    assert judgement.cells == wanted.sum() > 10


def test_a_network_that_knows_nothing_leaves_it_to_the_labels_around(known: TrainingSet) -> None:
    judgement, _ = judged(known, sharp=0.0)
    around, _, both = (judgement.confusions[name] for name in OUTPUTS)
    np.testing.assert_array_equal(both.counts, around.counts)


def test_nothing_is_judged_where_nothing_was_held_out(known: TrainingSet) -> None:
    assert judged(known, sharp=1.0, validation=0.0)[0] is None


def test_nothing_is_judged_where_no_label_was_kept_back(
    known: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("citycover_models.sharpen.judge._kept_back", lambda *_: _nothing_kept())
    assert judged(known, sharp=1.0)[0] is None


def _nothing_kept() -> _KeptBack:
    return _KeptBack(np.zeros(0, np.int64), np.full((16, 16), -1))
