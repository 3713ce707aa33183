import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import make_card, make_scene, plan_of
from strategies import axes, plans, scenes

from citycover.errors import PlanError
from citycover.geometry.window import Window
from citycover.model.card import WindowRule
from citycover.plan.axis import Axis
from citycover.plan.cost import PlanTotals
from citycover.plan.fit import PlanOptions, make_plan
from citycover.plan.layers import USUAL
from citycover.plan.plan import Plan
from citycover.scene.scene import Scene


@given(axes())
def test_weights_of_all_windows_sum_to_exactly_one_on_every_pixel(axis: Axis) -> None:
    total = np.zeros(axis.size + 4 * axis.window, np.float32)
    for index in range(axis.count):
        start = axis.start(index) + axis.window
        total[start : start + axis.window] += axis.weights(index)
    covered = total[axis.window : axis.window + axis.size]
    assert (covered == 1).all()


@given(axes())
def test_a_window_votes_where_its_weights_are_positive(axis: Axis) -> None:
    for index in range(axis.count):
        first, last = axis.votes(index)
        positive = np.flatnonzero(axis.weights(index)) + axis.start(index)
        inside = positive[(positive >= 0) & (positive < axis.size)]
        assert (inside[0], inside[-1] + 1) == (first, last)


@given(plans())
def test_blocks_partition_the_output_and_name_the_windows_that_vote_inside(plan: Plan) -> None:
    seen = np.zeros(plan.shape, int)
    for part in plan.blocks():
        seen[part.window.slices] += 1
        for axis, voters, first, end in (
            (plan.y, part.rows, part.window.row, part.window.row_end),
            (plan.x, part.columns, part.window.col, part.window.col_end),
        ):
            votes = [i for i in range(axis.count) if axis.votes(i)[0] < end and axis.votes(i)[1] > first]
            assert votes == list(range(*voters))
    assert (seen == 1).all()


@given(scenes(), st.sampled_from([None, 24, 40]))
def test_a_plan_maps_each_pixel_of_its_scene_where_it_lies(scene: Scene, window: int | None) -> None:
    card = make_card(WindowRule(size=40, multiple=4, maximum=64), 3, 2)
    plan = plan_of(scene, card, window=window)
    assert (plan.shape, plan.grid) == (scene.shape, scene.grid)
    assert (plan.y.count - 1) * plan.y.step < plan.y.size <= plan.y.count * plan.y.step
    assert PlanTotals(plan, scene, 5, USUAL).write_bytes >= plan.shape[0] * plan.shape[1]


def test_windows_are_fitted_to_the_raster() -> None:
    card = make_card(WindowRule(size=1024, multiple=16), 64, 16, stride=16)
    plan = plan_of(make_scene((1000, 2000)), card)
    assert (plan.y.count, plan.x.count) == (2, 3)
    assert plan.y.step == 512 and plan.x.step == 672
    assert plan.redundancy < 1.7


def test_a_fixed_window_stays_what_it_is() -> None:
    card = make_card(WindowRule(size=224, fixed=True), 32, 32, stride=16)
    plan = plan_of(make_scene((100, 500)), card)
    assert (plan.y.window, plan.x.window) == (224, 224)


def test_what_breaks_the_model_is_refused_with_the_nearest_that_fits() -> None:
    card = make_card(WindowRule(size=512, multiple=16, maximum=1024), 64, 16, stride=16)
    scene = make_scene((600, 600))
    with pytest.raises(
        PlanError,
        match=r"nearest that fits is --trim (72|56) --feather 8",
    ):
        plan_of(scene, card, feather=8)
    with pytest.raises(PlanError, match="nearest that fits is 512"):
        plan_of(scene, card, window=500)
    with pytest.raises(PlanError, match="leaves no step"):
        plan_of(scene, card, window=144, trim=64, feather=16 * 4)
    fixed = make_card(WindowRule(size=512, fixed=True), 64, 16)
    with pytest.raises(PlanError, match="windows of 512 only"):
        plan_of(scene, fixed, window=256)


def test_a_part_is_snapped_to_the_pixels_of_every_band_group() -> None:
    scene = make_scene((100, 130), ratios=(1, 2, 6))
    groups = tuple(
        make_card(72, 6, 6).groups[0].model_copy(update={"name": str(r), "ratio": r}) for r in (1, 2, 6)
    )
    card = make_card(72, 6, 6, groups=groups, stride=6)
    plan = make_plan(scene, card, PlanOptions(), Window(7, 13, 20, 20), batch=1, precision="fp32")
    assert plan.origin == (6, 12)
    assert plan.shape == (24, 24)
    assert plan.grid.transform.c == 500_012


def test_output_scales_keep_the_origin_and_count_partly_covered_cells() -> None:
    fine = make_card(64, 8, 8, output_scale="5")
    plan = plan_of(make_scene((30, 50)), fine)
    assert plan.shape == (150, 250)
    assert plan.grid.transform.a == pytest.approx(0.2)
    coarse = make_card(120, 0, 60, output_scale="1/60", stride=60)
    plan = plan_of(make_scene((121, 130)), coarse)
    assert plan.shape == (3, 3)
    assert plan.grid.transform.a == 60


def test_the_memory_bound_does_not_grow_with_the_raster() -> None:
    card = make_card(WindowRule(size=1024, multiple=16), 64, 16, stride=16)
    bounds = []
    for side in (8192, 40_960, 100_000):
        scene = make_scene((side, side))
        bounds.append(PlanTotals(plan_of(scene, card), scene, 5, USUAL).memory.total)
    assert max(bounds) < 1.15 * bounds[0]
