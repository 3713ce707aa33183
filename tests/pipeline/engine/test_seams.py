from __future__ import annotations

import numpy as np
import pytest
import torch
from making import make_card, make_scene, plan_of, run_sweeps
from torch import Tensor

from citycover.engine.agreement import Seams
from citycover.engine.seams import shifted_patches, verify_seams
from citycover.model.predictor import FunctionPredictor
from citycover.read.reader import ArrayReader

SHAPE = (330, 290)


def verified(function, card, valid: np.ndarray | None = None) -> Seams:
    image = np.random.default_rng(0).integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
    plan = plan_of(make_scene(SHAPE), card)
    classes, _ = run_sweeps(plan, card, function, [image], [valid])
    predictor = FunctionPredictor(card, function)
    return verify_seams(
        plan, predictor, lambda: [ArrayReader(image, valid)], lambda window: classes[window.slices]
    )


def pointwise(x: Tensor) -> Tensor:
    x = x.float()
    return torch.cat([x, 255 - x[:, :2]], dim=1)


def by_distance_to_the_edge(x: Tensor) -> Tensor:
    """Pixels near the edge of a window become the last class: what padding does, without any trim."""
    scores = pointwise(x)
    edge = torch.ones(x.shape[2:], dtype=torch.bool)
    edge[4:-4, 4:-4] = False
    scores[:, 4, edge] = 1e4
    return scores


def test_a_pointwise_network_has_no_seams() -> None:
    found = verified(pointwise, make_card(80, 0, 8))
    assert found.at_seams == 0 and found.interior == 0 and found.pixels > 10_000


def test_what_padding_does_is_found_at_the_seams_and_nowhere_else() -> None:
    found = verified(by_distance_to_the_edge, make_card(80, 0, 0))
    assert found.at_seams is not None and found.at_seams > 0.1
    assert found.interior == 0
    trimmed = verified(by_distance_to_the_edge, make_card(80, 8, 8))
    assert trimmed.at_seams == 0, "a trim takes it away"


def test_nodata_is_not_compared() -> None:
    valid = np.ones(SHAPE, np.bool_)
    valid[:, :200] = False
    some, every = verified(pointwise, make_card(80, 0, 8), valid), verified(pointwise, make_card(80, 0, 8))
    assert some.pixels < every.pixels
    nothing = verified(pointwise, make_card(80, 0, 8), np.zeros(SHAPE, np.bool_))
    assert (nothing.at_seams, nothing.interior, nothing.pixels) == (None, None, 0)


def test_a_scene_of_one_window_has_no_seams_to_verify() -> None:
    assert shifted_patches(plan_of(make_scene((60, 60)), make_card(80, 0, 8)), 1) == []


@pytest.mark.parametrize("stride", [1, 16])
def test_patches_lie_inside_the_scene_and_are_shifted_by_multiples_of_the_stride(stride: int) -> None:
    plan = plan_of(make_scene((3000, 5000)), make_card(96, 16, 16, stride=stride))
    patches = shifted_patches(plan, stride)
    assert 1 < len(patches) <= 4
    for patch in patches:
        assert patch.row % stride == 0 and patch.row % plan.y.step and patch.col % plan.x.step
        assert patch.row_end <= 3000 and patch.col_end <= 5000
