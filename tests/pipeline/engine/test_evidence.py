"""Labels in the sweep: a map in blocks is that of one forward pass with the labels put to it at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from labelled import grid_of, write_sheet
from late import LateTransfer
from making import (
    CLASSES,
    FILL,
    ArrayReader,
    FunctionPredictor,
    make_card,
    make_legend,
    make_scene,
    plan_of,
    run_sweeps,
)

from citycover.classes.table import ClassTable
from citycover.engine.input import SweepInput
from citycover.engine.sweep import sweep
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.open import open_field
from citycover.evidence.rule import Rule
from citycover.geometry.window import Window
from citycover.model.card import BandGroup
from citycover.plan.layers import CHANGE, CHANGED, USUAL

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


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    noise=st.sampled_from([0.0, 0.3]),
    batch=st.integers(1, 3),
    holes=st.booleans(),
    late=st.booleans(),
)
def test_blocks_see_the_same_change(
    tmp_path: Path, block: tuple[int, int], noise: float, batch: int, holes: bool, late: bool
) -> None:
    """The network knows nothing on the left, and is sure of another class than the labels' on the right."""
    card = make_card(32, 4, 6)
    image = np.zeros((83, 77, 3), np.uint8)
    image[:, 35:] = 255
    valid = np.random.default_rng(1).random((83, 77)) < 0.8 if holes else None
    cells = np.full((30, 30), 0, np.int16)
    cells[:6, 20:] = -1
    grid = grid_of(cells.shape, Affine(3.1, 0, 500_000 - 3.3, 0, -3.1, 5_800_000 + 1.7))
    legend = make_legend()
    table = ClassTable.onto(legend, {id_: id_ for id_ in (0, *legend.ids)}, title="legend 'test'")
    sheet = write_sheet(tmp_path / "labels.tif", cells, grid, table)
    labels = LabelEvidence((sheet,), (0.2,) * CLASSES, (0.2,) * CLASSES, Rule(noise), change=True)
    scene, layers = make_scene((83, 77)), (*USUAL, CHANGE)
    maps = []
    for plan in (plan_of(scene, card, block=block, batch=batch), plan_of(scene, card)):
        field = open_field(labels, plan.grid, CPU)
        given = SweepInput(
            plan,
            FunctionPredictor(card, scores),
            lambda: [ArrayReader(image, valid, (16, 16))],
            evidence=field,
            layers=layers,
            transfer=LateTransfer([9]) if late and batch > 1 else None,
        )
        whole = {layer.name: np.zeros(plan.shape, np.uint8) for layer in layers}
        for bx in range(plan.block_counts[1]):
            for done in sweep(given, [plan.block(by, bx) for by in range(plan.block_counts[0])]):
                for name, values in done.layers.items():
                    whole[name][done.block.window.slices] = values
        maps.append(whole)
    for layer in layers:
        np.testing.assert_array_equal(maps[0][layer.name], maps[1][layer.name])
    change, classes = maps[1]["change"], maps[1]["classes"]
    seen = classes != card.legend.product_nodata
    assert (change[~seen] == 255).all()
    assert (change[:10, 65:] == 255).all()  # no label
    assert (change[25:, :25][seen[25:, :25]] == 0).all()
    assert (change[25:, 48:][seen[25:, 48:]] >= CHANGED).mean() > 0.98
    plain = LabelField(replace(labels, change=False), plan.grid, CPU)
    without, _ = run_sweeps(plan, card, scores, [image], [valid], evidence=plain)
    np.testing.assert_array_equal(classes[change == 0], without[change == 0])
