from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from making import make_card, make_scene, plan_of

from citycover.compute import choices
from citycover.compute.choices import choose_precision, default_batch, fastest_window
from citycover.compute.trials import Speed, measure_speed
from citycover.errors import ConfigError, MachineError
from citycover.machine.device import choose_device
from citycover.model.builtin import builtin_path
from citycover.model.precision import fast_precision, passes_gate
from citycover.model.predictor import ModelPredictor, to_probabilities
from citycover.plan.plan import Plan


def probabilities(seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.softmax(3 * torch.randn(1, 5, 200, 200), 1)


def test_the_gate_lets_near_ties_flip_and_nothing_else() -> None:
    exact = probabilities()
    noisy = (exact + 0.002 * torch.randn_like(exact)).clamp(1e-6)
    assert (noisy.argmax(1) != exact.argmax(1)).any() and passes_gate(exact, noisy)
    flipped = exact.clone()
    flipped[:, :, :10, :10] = exact[:, :, :10, :10].flip(1)
    assert not passes_gate(exact, flipped)
    assert not passes_gate(exact, exact + 0.02)
    assert not passes_gate(exact, torch.full_like(exact, torch.nan))


def test_scores_become_probabilities_as_the_card_says() -> None:
    scores = torch.randn(1, 5, 4, 4)
    classes, labels = make_card(32, 2, 2), make_card(32, 2, 2, task="labels")
    assert to_probabilities(scores, classes).sum(1).allclose(torch.ones(1, 4, 4))
    assert to_probabilities(scores, labels).equal(torch.sigmoid(scores))
    ready = make_card(32, 2, 2, activation="probabilities")
    kept = to_probabilities(scores, ready)
    assert kept.equal(scores) and kept.data_ptr() != scores.data_ptr()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_come_planar_from_any_scores_and_in_place_is_exact(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    whole = (4 * torch.randn(2, 7, 40, 50)).to(dtype).contiguous(memory_format=layout)
    scores = whole[:, :, 3:37, 5:45]
    expected = torch.softmax(scores.float().contiguous(), 1)
    memory = torch.empty(2, 7, 34, 40)
    found = to_probabilities(scores, make_card(32, 2, 2), memory)
    assert found.equal(expected) and found.is_contiguous() and found.data_ptr() == memory.data_ptr()
    assert scores.equal(whole[:, :, 3:37, 5:45]) and not scores.float().equal(found)


def test_a_model_gives_the_same_scores_alone_and_in_a_batch_up_to_rounding() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    windows = torch.randint(0, 255, (3, 4, 64, 80), dtype=torch.uint8)
    together = predictor([windows])
    for k in range(3):
        assert predictor([windows[k : k + 1]])[0].allclose(together[k], atol=1e-4)


def test_reduced_precision_is_autocast() -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"), "bf16")
    scores = predictor([torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8)])
    assert torch.isfinite(scores).all()
    assert to_probabilities(scores, predictor.card).dtype == torch.float32


def test_another_precision_is_another_predictor_of_the_same_network() -> None:
    exact = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    fast = exact.at("bf16")
    assert fast.network is exact.network and (exact.precision, fast.precision) == ("fp32", "bf16")
    with pytest.raises(AttributeError):
        exact.precision = "bf16"  # type: ignore[misc]
    windows = [torch.randint(0, 255, (1, 4, 64, 64), dtype=torch.uint8)]
    before = exact(windows)
    assert not fast(windows).float().equal(before) and exact(windows).equal(before)


def test_precision_auto_asks_the_hardware_and_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    predictor = replace(predictor, card=predictor.card.model_copy(update={"precision": "any"}))
    samples = [[torch.randint(0, 255, (1, 4, 96, 96), dtype=torch.uint8)]]
    assert choose_precision("bf16", predictor, lambda: samples) == "bf16"
    monkeypatch.setattr("citycover.compute.choices.fast_precision", lambda _device: None)
    assert choose_precision("auto", predictor, lambda: pytest.fail("nothing to compare")) == "fp32"
    monkeypatch.setattr("citycover.compute.choices.fast_precision", lambda _device: "bf16")
    monkeypatch.setattr("citycover.compute.choices.passes_gate", lambda _exact, _fast: True)
    assert choose_precision("auto", predictor, lambda: samples) == "bf16"
    monkeypatch.setattr("citycover.compute.choices.passes_gate", lambda _exact, _fast: False)
    assert choose_precision("auto", predictor, lambda: samples) == "fp32"


def test_devices_that_are_not_there_are_named() -> None:
    assert choose_device("cpu").type == "cpu" and choose_device("auto").type in ("cpu", "cuda")
    for name in ("warp-drive", "meta"):  # an option that is wrong, not a machine that lacks something
        with pytest.raises(ConfigError, match="--device takes"):
            choose_device(name)
    with pytest.raises(MachineError, match="--device cpu"):
        choose_device("cuda:99")
    assert fast_precision(torch.device("cpu")) in (None, "bf16")


def test_a_probe_of_speed_is_positive() -> None:
    card = make_card(64, 4, 8)
    plan = replace(plan_of(make_scene((300, 300)), card), batch=2)
    predictor = ModelPredictor.load(builtin_path("spectral-rgbn"), torch.device("cpu"))
    assert measure_speed(plan, predictor).seconds(plan) > 0


def test_a_batch_has_the_windows_of_a_row_as_far_as_they_fit() -> None:
    cpu, card = torch.device("cpu"), make_card(64, 4, 8)
    few, many = (plan_of(make_scene((300, width)), card) for width in (300, 9000))
    assert default_batch(few, cpu) == few.x.count < 64
    assert default_batch(many, cpu) == 64
    fine = replace(many, scale=Fraction(5))
    assert default_batch(fine, cpu) == 1_500_000 // (25 * many.window_pixels) < 64
    assert default_batch(plan_of(make_scene((9000, 9000)), make_card(2048, 4, 8)), cpu) == 1


def test_the_window_is_the_one_whose_trial_promises_the_shortest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, tried = make_scene((9000, 9000)), list[int]()
    plans = {w: replace(plan_of(scene, make_card(w, 4, 8)), batch=1) for w in (64, 128, 256, 2048)}

    def speed(plan: Plan, _predictor: object, repeats: int) -> Speed:
        size = next(size for size, known in plans.items() if known is plan)
        tried.append(size)
        per_pixel = {64: 1.0, 128: 0.5, 256: 0.9}[size]
        return Speed(per_pixel * plan.window_pixels, 0)

    monkeypatch.setattr("citycover.compute.choices.measure_speed", speed)
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

    monkeypatch.setattr(choices, "measure_speed", speed)
    plans = {size: _Plan(size) for size in seconds}
    assert choices.fastest_window(plans, None) == chosen  # type: ignore[arg-type]


def test_trials_stay_within_their_share_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pushed: list[int] = []

    def speed(plan: _Plan, _predictor: object, repeats: int) -> Speed:
        pushed.append((1 + repeats) * plan.window_pixels)
        return Speed(1.0, 0)

    monkeypatch.setattr(choices, "measure_speed", speed)
    for windows in (1, 50, 300, 700, 5000):
        pushed.clear()
        plans = {32: _Plan(32, windows), 48: _Plan(48), 64: _Plan(64)}
        choices.fastest_window(plans, None)  # type: ignore[arg-type]
        assert sum(pushed) <= choices.PROBE_SHARE * windows * 32 * 32
        assert len(pushed) != 1
