"""Layers, evidence, and what a network may not give."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from making import CLASSES, make_card, make_scene, plan_of, pointwise, run_sweeps
from numpy.typing import NDArray
from torch import Tensor

from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.errors import ModelError
from citycover.geometry.window import Window
from citycover.model.predictor import FunctionPredictor
from citycover.plan import layers
from citycover.plan.layers import CONFIDENCE, SECOND, USUAL, Layer
from citycover.read.reader import ArrayReader

SHAPE = (50, 44)
IMAGE = np.random.default_rng(0).integers(1, 255, (*SHAPE, 3), np.uint8)
EACH = Layer(
    "each",
    "each.tif",
    "each",
    lambda ranking: ranking.keys.view(torch.float32).mul(254).round().byte() + 1,
    nodata=0,
    per_class=True,
)


def swept(function: Callable[[Tensor], Tensor] = pointwise, **given: Any) -> dict[str, NDArray[np.uint8]]:
    """All blocks of a map of IMAGE, by layer."""
    card = make_card(24, 3, 2)
    plan = plan_of(make_scene(SHAPE), card, block=(20, 22))
    valid = np.ones(SHAPE, np.bool_)
    valid[:10, :8] = False
    start = SweepInput(plan, FunctionPredictor(card, function), lambda: [ArrayReader(IMAGE, valid)], **given)
    made: dict[str, NDArray[np.uint8]] = {}
    for bx in range(plan.block_counts[1]):
        for block in sweep(start, [plan.block(by, bx) for by in range(plan.block_counts[0])]):
            for name, pixels in block.layers.items():
                whole = made.setdefault(name, np.zeros((*pixels.shape[:-2], *SHAPE), np.uint8))
                whole[(..., *block.block.window.slices)] = pixels
    return made


def test_layers_stand_beside_the_best_class() -> None:
    made = swept(layers=(*USUAL, SECOND, EACH))
    probabilities = torch.softmax(pointwise(torch.from_numpy(IMAGE).permute(2, 0, 1)[None]), 1)[0]
    usual = swept()
    for name, pixels in usual.items():
        np.testing.assert_array_equal(made[name], pixels)
    valid = usual["confidence"] > 0
    wanted = probabilities.mul(254).round().byte().numpy().astype(int) + 1
    assert (abs(made["each"] - wanted)[:, valid] <= 1).all()
    assert (made["each"][:, ~valid] == 0).all() and (made["second"][~valid] == 0).all()
    assert (made["second"] != made["classes"])[valid].all()


def test_a_layer_alone_is_made_without_the_others() -> None:
    made = swept(layers=(CONFIDENCE,))
    assert set(made) == {"confidence"}
    np.testing.assert_array_equal(made["confidence"], swept()["confidence"])


def test_evidence_has_the_last_word_and_is_asked_for_each_pixel_once() -> None:
    asked = np.zeros(SHAPE, int)

    def third_in_the_east(probabilities: Tensor, window: Window) -> Tensor:
        assert probabilities.shape == (CLASSES, window.height, window.width)
        torch.testing.assert_close(probabilities.sum(0), torch.ones(window.height, window.width))
        asked[window.slices] += 1
        cols = torch.arange(window.col, window.col_end)
        probabilities[:, :, cols >= 30] = 0
        probabilities[2, :, cols >= 30] = 1
        return probabilities

    made, plain = swept(evidence=third_in_the_east), swept()
    assert (made["classes"][:, 30:] == 3).all() and (made["confidence"][:, 30:] == 255).all()
    np.testing.assert_array_equal(made["classes"][:, :30], plain["classes"][:, :30])
    assert asked.max() == 1 and asked[plain["classes"] > 0].all()


def with_number(value: float, pixel: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """A network that gives a number at every place whose first band is like that of one pixel of IMAGE."""
    place = tuple(IMAGE[pixel].tolist())

    def network(image: Tensor) -> Tensor:
        scores = pointwise(image)
        where = (image == torch.tensor(place, dtype=torch.uint8)[:, None, None]).all(1)
        scores[:, 1][where] = value
        return scores

    return network


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_in_one_window_ends_the_run_and_names_it(value: float) -> None:
    with pytest.raises(ModelError, match=r"not finite .* window of 21 x 23 px at row 8, column 10 ") as told:
        swept(with_number(value, (25, 25)))
    assert "value_range" in str(told.value)


def test_numbers_where_nothing_is_valid_do_not_matter() -> None:
    def zero_by_zero(image: Tensor) -> Tensor:
        scores = pointwise(image)
        filled = (image == torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None]).all(1)
        scores[:, 0][filled] = np.nan
        return scores

    for name, pixels in swept().items():
        np.testing.assert_array_equal(swept(zero_by_zero)[name], pixels)


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_what_is_no_probability_is_not_taken_for_one(value: float) -> None:
    def network(image: Tensor) -> Tensor:
        found = torch.softmax(pointwise(image), 1)
        found[:, :, 12:13, 12:13] = value
        return found

    card = make_card(24, 3, 2, activation="probabilities")
    with pytest.raises(ModelError, match="not finite" if np.isnan(value) else "write activation"):
        run_sweeps(plan_of(make_scene(SHAPE), card), card, network, [IMAGE], [None])


def failing(_image: Tensor) -> Tensor:
    raise RuntimeError("Traceback of TorchScript\n\nshape '[2, 64]' is invalid for input of size 24\n")


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (lambda image: (pointwise(image),), "returns a tuple; one tensor of scores"),
        (lambda image: pointwise(image).argmax(1, keepdim=True), "torch.int64 numbers; floating-point"),
        (lambda image: pointwise(image)[..., 1:], "scores of shape .*; its card promises"),
        (failing, r"windows of 21 x 23 px: shape '\[2, 64\]' is invalid for input of size 24; mend"),
    ],
)
def test_a_network_that_breaks_its_promise_is_told_so(network: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        swept(network)


def test_every_layer_that_needs_neither_labels_nor_several_networks_is_made() -> None:
    asked = tuple(layer for layer in layers.LAYERS if layer not in (layers.CHANGE, layers.DISAGREEMENT))
    made = swept(layers=asked)
    assert set(made) == {layer.name for layer in asked}
    assert all(pixels.any() for pixels in made.values())
