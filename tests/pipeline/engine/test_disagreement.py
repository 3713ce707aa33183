"""How far networks differ, as a layer: by any blocks, beside dates and beside labels that are watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import given
from making import CLASSES, cnn, make_card, make_scene, plan_of
from numpy.typing import NDArray
from strategies import sweeps
from torch import Tensor

from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.model.ensemble import JointPredictor
from citycover.model.predictor import FunctionPredictor
from citycover.plan.layers import CHANGE, DISAGREEMENT, USUAL
from citycover.plan.plan import Plan
from citycover.read.reader import ArrayReader

STRAIGHT = ((False, ()),)


def other(image: Tensor) -> Tensor:
    return 20 * cnn(image.flip(1)) / 30


def two(card: ModelCard) -> JointPredictor:
    ranks = torch.arange(CLASSES)
    parts = tuple((FunctionPredictor(card, net), 0.5, ranks) for net in (cnn, other))
    joint = card.model_copy(update={"activation": "probabilities"})
    return JointPredictor(joint, torch.device("cpu"), parts, STRAIGHT)


def layers(
    plan: Plan, card: ModelCard, images: Sequence[NDArray[Any]], valids: Sequence[NDArray[Any]], **given: Any
) -> dict[str, NDArray[np.uint8]]:
    """Every block of a plan, put together."""

    def readers() -> list[ArrayReader]:
        return [ArrayReader(i, v, (16, 16)) for i, v in zip(images, valids, strict=True)]

    start = SweepInput(plan, two(card), readers, **{"layers": (*USUAL, DISAGREEMENT)} | given)
    made = {layer.name: np.full(plan.shape, 99, np.uint8) for layer in start.layers}
    for bx in range(plan.block_counts[1]):
        for block in sweep(start, [plan.block(by, bx) for by in range(plan.block_counts[0])]):
            for name, pixels in block.layers.items():
                made[name][block.block.window.slices] = pixels
    return made


def case(run: dict[str, Any]) -> tuple[ModelCard, Plan, NDArray[Any], NDArray[np.bool_]]:
    card = make_card(run["window"], run["trim"], run["feather"])
    plan = plan_of(make_scene(run["shape"]), card, block=run["block"], batch=run["batch"])
    rng = np.random.default_rng(6)
    return card, plan, rng.integers(0, 255, (*run["shape"], 3), np.uint8), rng.random(run["shape"]) < 0.9


@given(sweeps())
def test_blocks_do_not_matter_and_the_map_is_that_without_the_layer(run: dict[str, Any]) -> None:
    card, plan, image, valid = case(run)
    whole = plan_of(make_scene(run["shape"]), card, batch=run["batch"])
    found, again = (layers(p, card, [image], [valid]) for p in (plan, whole))
    plain = layers(plan, card, [image], [valid], layers=USUAL)
    for name in found:
        np.testing.assert_array_equal(found[name], again[name])
    for name in plain:
        np.testing.assert_array_equal(found[name], plain[name])
    assert ((found["disagreement"] == 255) == ~valid).all()


def test_of_dates_it_is_their_mean_within_each() -> None:
    card = make_card(32, 4, 4)
    plan = plan_of(make_scene((60, 60)), card)
    rng = np.random.default_rng(7)
    images = [rng.integers(0, 255, (60, 60, 3), np.uint8) for _ in range(2)]
    valid = np.ones((60, 60), np.bool_)
    alone = [layers(plan, card, [i], [valid])["disagreement"].astype(float) for i in images]
    both = layers(plan, card, images, [valid, valid])["disagreement"]
    assert np.abs(both - np.mean(alone, axis=0)).max() <= 1
    west = np.broadcast_to(np.arange(60) < 30, (60, 60))
    apart = [layers(plan, card, [i], [v])["disagreement"] for i, v in zip(images, (west, ~west), strict=True)]
    one = layers(plan, card, images, [west, ~west])["disagreement"]
    np.testing.assert_array_equal(one, np.where(west, *apart))


class Watcher:
    """Evidence that sees the brightness of each window's first class, and hands on the rest."""

    def watch(self, probabilities: Tensor, window: Window, seen: NDArray[np.bool_]) -> Tensor:
        assert len(probabilities) == CLASSES
        return probabilities[0]

    def __call__(self, planes: Tensor, window: Window) -> Tensor:
        assert len(planes) == CLASSES + 1
        return planes


def test_it_stands_beside_what_labels_are_watched_for() -> None:
    card = make_card(32, 4, 4)
    plan = plan_of(make_scene((60, 60)), card)
    image, valid = (
        np.random.default_rng(8).integers(0, 255, (60, 60, 3), np.uint8),
        np.ones((60, 60), np.bool_),
    )
    alone = layers(plan, card, [image], [valid])
    both = layers(plan, card, [image], [valid], layers=(*USUAL, DISAGREEMENT, CHANGE), evidence=Watcher())
    np.testing.assert_array_equal(both["disagreement"], alone["disagreement"])
    np.testing.assert_array_equal(both["classes"], alone["classes"])
    watched = layers(plan, card, [image], [valid], layers=(*USUAL, CHANGE), evidence=Watcher())
    np.testing.assert_array_equal(both["change"], watched["change"])
    assert both["change"].std() > 0
