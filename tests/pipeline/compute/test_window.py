from dataclasses import replace

import pytest
import torch
from making import make_card, make_scene, plan_of

from citycover.compute import window
from citycover.compute.trials import PROBE_SHARE, Speed
from citycover.compute.window import fastest_window, largest_window
from citycover.model.builtin import builtin_path
from citycover.model.card import WindowRule
from citycover.model.predictor import ModelPredictor
from citycover.plan.plan import Plan


def test_a_gpu_takes_the_window_of_the_fewest_pixels_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    card = make_card(WindowRule(size=128, multiple=32, maximum=2048), 16, 8)
    scene = make_scene((9000, 9000))
    plans = {size: plan_of(scene, card, window=size) for size in (128, 192, 256, 2048)}
    tried: list[int] = []

    def speed(plan: Plan, _predictor: object, repeats: int) -> Speed:
        tried.append(plan.x.window)
        assert (plan.batch, repeats) == (1, 1)
        if plan.x.window > 256:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return Speed(1.0, 0)

    monkeypatch.setattr(window, "measure_speed", speed)
    assert largest_window(plans, None) == 256  # type: ignore[arg-type]
    assert tried[:2] == [192, 256] and len(tried) == 3


def test_the_window_is_the_one_whose_trial_promises_the_shortest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, tried = make_scene((9000, 9000)), list[int]()
    plans = {w: replace(plan_of(scene, make_card(w, 4, 8)), batch=1) for w in (64, 128, 256, 2048)}

    def speed(plan: Plan, _predictor: object, repeats: int) -> Speed:
        size = next(size for size, known in plans.items() if known is plan)
        tried.append(size)
        per_pixel = {64: 1.0, 128: 0.5, 256: 0.9}[size]
        return Speed(per_pixel * plan.window_pixels, 0)

    monkeypatch.setattr("citycover.compute.window.measure_speed", speed)
    predictor = ModelPredictor.load(builtin_path("spectral-rgb"), torch.device("cpu"))
    assert fastest_window(plans, predictor) == 128
    assert tried == [64, 128, 256], "the trial of 2048 costs more than 2 % of the run"
    assert fastest_window({64: plans[64], 2048: plans[2048]}, predictor) == 64


class _Plan:
    """What choosing a window asks of a plan."""

    def __init__(self, size: int, windows: int = 1000) -> None:
        self.window_pixels, self.windows, self.batch = size * size, windows, 1


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [({32: 100, 48: 97, 64: 96}, 32), ({32: 100, 48: 90, 64: 88}, 48), ({32: 100, 48: 97, 64: 80}, 64)],
)
def test_a_larger_window_must_be_worth_its_memory(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], chosen: int
) -> None:
    def speed(plan: _Plan, _predictor: object, _repeats: int) -> Speed:
        size = int(plan.window_pixels**0.5)
        return Speed(seconds[size] / (1.15 * plan.windows), 0)

    monkeypatch.setattr(window, "measure_speed", speed)
    plans = {size: _Plan(size) for size in seconds}
    assert fastest_window(plans, None) == chosen  # type: ignore[arg-type]


def test_a_window_that_does_not_fit_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def speed(plan: _Plan, _predictor: object, _repeats: int) -> Speed:
        if plan.window_pixels > 32 * 32:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return Speed(1.0, 0)

    monkeypatch.setattr(window, "measure_speed", speed)
    plans = {size: _Plan(size) for size in (32, 48, 64)}
    assert fastest_window(plans, None) == 32  # type: ignore[arg-type]


def test_trials_stay_within_their_share_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[int] = []

    def speed(plan: _Plan, _predictor: object, repeats: int) -> Speed:
        pushed.append((1 + repeats) * plan.window_pixels)
        return Speed(1.0, 0)

    monkeypatch.setattr(window, "measure_speed", speed)
    for windows in (1, 50, 300, 700, 5000):
        pushed.clear()
        plans = {32: _Plan(32, windows), 48: _Plan(48), 64: _Plan(64)}
        fastest_window(plans, None)  # type: ignore[arg-type]
        assert sum(pushed) <= PROBE_SHARE * windows * 32 * 32
        assert len(pushed) != 1
