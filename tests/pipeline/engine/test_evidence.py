"""Labels in the sweep: a map in blocks is that of one forward pass with the labels put to it at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelled import grid_of, write_sheet
from making import CLASSES, FILL, make_card, make_legend, make_scene, plan_of, run_sweeps

from citycover.classes.table import ClassTable
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.rule import Rule
from citycover.geometry.window import Window
from citycover.model.card import BandGroup

CPU = torch.device("cpu")


def evidence(path: Path, cell: float, noise: float, seed: int = 0) -> LabelEvidence:
    """Random labels with holes over the scenes of `make_scene`."""
    cells = np.random.default_rng(seed).integers(-1, CLASSES, (12, 12)).astype(np.int16)
    grid = grid_of((12, 12), Affine(cell, 0, 500_000 - 3.3, 0, -cell, 5_800_000 + 1.7))
    legend = make_legend()
    table = ClassTable.onto(legend, {id_: id_ for id_ in (0, *legend.ids)}, title="legend 'test'")
    sheet = write_sheet(path / "labels.tif", cells, grid, table)
    return LabelEvidence((sheet,), (0.2,) * CLASSES, (0.2,) * CLASSES, Rule(noise))


def scores(image: torch.Tensor, *_others: torch.Tensor) -> torch.Tensor:
    """One score a class, of each pixel alone."""
    weights = torch.linspace(-2, 2, 3 * CLASSES).view(CLASSES, 3)
    return torch.einsum("kb,nbyx->nkyx", weights, image.float() / 50)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    noise=st.sampled_from([0.0, 0.15, 0.3]),
    cell=st.sampled_from([1.0, 4.7, 33.0]),
)
def test_blocks_are_the_whole(tmp_path: Path, block: tuple[int, int], noise: float, cell: float) -> None:
    card = make_card(24, 4, 4)
    image = np.random.default_rng(2).integers(0, 255, (53, 47, 3)).astype(np.uint8)
    plan = plan_of(make_scene((53, 47)), card, block=block)
    field = LabelField(evidence(tmp_path, cell, noise), plan.grid, CPU)
    classes, confidence = run_sweeps(plan, card, scores, [image], [None], evidence=field)
    once = plan_of(make_scene((53, 47)), card)
    whole = run_sweeps(once, card, scores, [image], [None], evidence=field)
    np.testing.assert_array_equal(classes, whole[0])
    np.testing.assert_array_equal(confidence, whole[1])


@pytest.mark.parametrize("scale", ["1", "5"])
def test_labels_are_put_to_the_blended_probabilities(tmp_path: Path, scale: str) -> None:
    """By hand: softmax of one forward pass, the field over all of it, the best class."""
    card = make_card(24, 4, 4, output_scale=scale)
    times = int(scale)

    def function(image: torch.Tensor) -> torch.Tensor:
        return scores(image).repeat_interleave(times, 2).repeat_interleave(times, 3)

    image = np.random.default_rng(2).integers(0, 255, (40, 36, 3)).astype(np.uint8)
    plan = plan_of(make_scene((40, 36)), card, block=(60, 60))
    field = LabelField(evidence(tmp_path, 4.7, 0.13), plan.grid, CPU)
    classes, confidence = run_sweeps(plan, card, function, [image], [None], evidence=field)
    raw = torch.from_numpy(image).permute(2, 0, 1)[None]
    wanted = field(function(raw)[0].softmax(0), Window(0, 0, *plan.shape))
    best = wanted.max(0)
    clear = (wanted.topk(2, 0).values.diff(dim=0)[0].abs() > 1e-4).numpy()
    np.testing.assert_array_equal(classes[clear], best.indices.numpy()[clear] + 1)
    np.testing.assert_allclose(confidence, best.values.numpy() * 255, atol=0.51)


def test_labels_meet_groups_of_several_resolutions(tmp_path: Path) -> None:
    groups = tuple(
        BandGroup(name=str(r), bands=("a", "b", "c"), ratio=r, dtypes=("uint8",), fill=FILL) for r in (1, 2)
    )
    card = make_card(24, 4, 4, groups=groups, stride=2)
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 255, (41 // r + r - 1, 33 // r + r - 1, 3)).astype(np.uint8) for r in (1, 2)]
    maps = []
    for block in ((41, 33), (30, 20)):
        plan = plan_of(make_scene((41, 33), ratios=(1, 2)), card, block=block)
        field = LabelField(evidence(tmp_path, 4.7, 0.0), plan.grid, CPU)
        maps.append(run_sweeps(plan, card, scores, images, [None, None], evidence=field))
    alone = run_sweeps(plan, card, scores, images, [None, None])
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0][0] != alone[0]).mean() > 0.1
