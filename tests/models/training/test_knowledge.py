from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from training_sets import make_city, small_recipe, training_set_of

from citycover.model.archive import read_model_file
from citycover_models.data.chips import ChipReader
from citycover_models.data.sampling import SamplePlan, plan_samples
from citycover_models.training.knowledge import Knowledge, measure_knowledge
from citycover_models.training.request import TrainRequest
from citycover_models.training.start import train


def measure(
    city: Path, logits: Tensor, validation: float = 0.25, scale: float = 1.0
) -> tuple[Knowledge, SamplePlan]:
    """What a network would know that gives the same logits everywhere."""
    learned = training_set_of(city)
    plan = plan_samples(
        learned.pairs, 6, chip=32, chips_per_epoch=8, balance="classes", validation=validation, seed=0,
        held_scale=scale,
    )  # fmt: skip
    reader = ChipReader(learned.pairs, [0.0] * 4)

    def scores(images: Tensor) -> Tensor:
        return logits[None, :, None, None].expand(len(images), -1, *images.shape[2:])

    return measure_knowledge(scores, reader, plan, learned.pairs), plan


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_city(tmp_path_factory.mktemp("city"))


def test_the_prior_is_the_mean_prediction(city: Path) -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5, 0.0])
    knowledge, plan = measure(city, logits)
    wanted = logits.softmax(0).numpy() * (plan.label_counts > 0)
    np.testing.assert_allclose(knowledge.prior, wanted, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.8, 2.0])
def test_noise_is_looked_for_in_the_held_out_labels(city: Path, scale: float) -> None:
    """A network that says class 1 everywhere knows no class: it cannot contradict the labels of others."""
    knowledge, plan = measure(city, torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0, 0.0]), scale=scale)
    reader = ChipReader(training_set_of(city).pairs, [0.0] * 4)
    labels = np.concatenate([reader.read(chip)[1].ravel() for chip in plan.held_out])
    labels = labels[labels != 255]
    assert knowledge.noise is not None
    assert knowledge.noise.share == 0
    assert knowledge.noise.cells == pytest.approx(labels.size / (100 * scale**2), rel=1e-3)


def test_nothing_held_out_measures_no_noise(city: Path) -> None:
    knowledge, _ = measure(city, torch.zeros(6), validation=0.0)
    assert knowledge.noise is None
    assert (knowledge.fields["label_noise"], knowledge.fields["label_cells"]) == (None, 0)
    assert "not known" in str(knowledge)


def test_a_trained_model_carries_what_it_knows(city: Path, tmp_path: Path) -> None:
    trained = train(TrainRequest(training_set_of(city), small_recipe(), tmp_path / "out", measure=False))
    card = read_model_file(trained.model).card
    had = [name in {"building", "paved"} for name in card.legend.names]
    assert all(p > 0 for p, there in zip(card.trained_prior, had, strict=True) if there)
    assert card.trained_prior[card.legend.names.index("water")] == 0  # no label of this city means it
    assert card.label_legend == "city"
    assert card.label_noise == trained.labels["label_noise"]
    west, south, east, north = card.trained_on[0]
    assert west < east
    assert south < north
